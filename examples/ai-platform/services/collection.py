"""A collection of vectors: in memory for searching, in an append-only log for keeping.

Every change is one line of the log, on disk (fdatasync) before it is acknowledged. A crash can tear only the last
line: it was never acknowledged, so it is cut off at the next start. A broken line anywhere else means that the disk
lost something, and the collection refuses to open instead of serving with holes. When more than half of the log is
history, opening rewrites it: to a new file, renamed over the old one once it is safe on disk.

Vectors are kept normalised, so that the cosine of two is their dot product and a search is one matrix product.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from .failures import Rejected

Vector = npt.NDArray[np.float32]
PointId = int | str
_REWRITE_ABOVE = 1000


class CorruptLog(Exception):
    """A line in the middle of the log does not parse: data was lost outside this program."""


@dataclass(frozen=True, slots=True)
class Point:
    """A vector with its id and whatever its owner wants to find again with it."""

    id: PointId
    vector: Vector
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hit:
    """A point that a search found; ``score`` is the cosine, from -1 to 1."""

    id: PointId
    score: float
    payload: dict[str, Any]


def normalised(vector: npt.ArrayLike, size: int) -> Vector:
    """``vector`` at length 1. Raises Rejected unless it has ``size`` finite numbers that are not all zero."""
    try:
        array = np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise Rejected("vector: a list of numbers is required") from error
    if array.shape != (size,):
        raise Rejected(f"vector: {size} numbers are required, got shape {array.shape}")
    length = float(np.linalg.norm(array.astype(np.float64)))
    if not np.isfinite(length) or length == 0.0:
        raise Rejected("vector: the numbers must be finite and not all zero")
    return (array / length).astype(np.float32)


def matches(payload: dict[str, Any], conditions: dict[str, Any]) -> bool:
    """Whether every condition (field → value) holds for ``payload``."""
    return all(payload.get(field) == value for field, value in conditions.items())


class Collection:
    """Points of one dimension, held in ``folder``. Not safe for concurrent changes: the caller takes turns."""

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self._path = folder / "points.jsonl"
        self._rows: dict[PointId, int] = {}
        self._ids: list[PointId] = []
        self._payloads: list[dict[str, Any]] = []
        self._matrix: Vector = np.zeros((64, size), dtype=np.float32)
        folder.mkdir(parents=True, exist_ok=True)
        lines = self._load()
        self._log = self._path.open("ab")
        if lines > _REWRITE_ABOVE and lines > 2 * len(self._ids):
            self._rewrite()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def log_bytes(self) -> int:
        """The length of the log on disk."""
        return self._path.stat().st_size

    def upsert(self, points: list[Point]) -> None:
        """Write ``points``, replacing those of the same id, and return once they are on disk."""
        self._append(_upserts(points))
        for point in points:
            self._put(point)

    def delete(self, ids: Iterable[PointId]) -> int:
        """Remove the points of ``ids`` that exist and return how many; done once that is on disk."""
        present = [identity for identity in dict.fromkeys(ids) if identity in self._rows]
        if present:
            self._append([{"delete": present}])
        for identity in present:
            self._drop(identity)
        return len(present)

    def ids_where(self, conditions: dict[str, Any]) -> list[PointId]:
        """The ids of the points whose payload meets every condition."""
        return [identity for identity in self._ids if matches(self._payloads[self._rows[identity]], conditions)]

    def search(self, vector: npt.ArrayLike, limit: int, conditions: dict[str, Any]) -> list[Hit]:
        """The ``limit`` points nearest to ``vector``, best first; equals in the order of their ids."""
        count = len(self._ids)
        scores = self._matrix[:count] @ normalised(vector, self.size)
        order = np.argsort(-scores, kind="stable")
        found: list[Hit] = []
        for row in order:
            if len(found) == limit:
                break
            if matches(self._payloads[row], conditions):
                found.append(Hit(self._ids[row], float(scores[row]), self._payloads[row]))
        return sorted(found, key=lambda hit: (-hit.score, str(hit.id)))

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _put(self, point: Point) -> None:
        row = self._rows.get(point.id)
        if row is None:
            row = len(self._ids)
            if row == len(self._matrix):
                self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
            self._rows[point.id] = row
            self._ids.append(point.id)
            self._payloads.append(point.payload)
        self._matrix[row] = point.vector
        self._payloads[row] = point.payload

    def _drop(self, identity: PointId) -> None:
        """Remove a point; the last row moves into its place, so that the matrix has no holes."""
        row, last = self._rows.pop(identity), len(self._ids) - 1
        if row != last:
            moved = self._ids[last]
            self._ids[row], self._payloads[row] = moved, self._payloads[last]
            self._matrix[row] = self._matrix[last]
            self._rows[moved] = row
        self._ids.pop()
        self._payloads.pop()

    def _append(self, entries: Iterable[dict[str, Any]]) -> None:
        before = self._path.stat().st_size
        try:
            for entry in entries:
                self._log.write(orjson.dumps(entry) + b"\n")
            self._log.flush()
            os.fdatasync(self._log.fileno())
        except OSError:
            # Half a change must not be found again at the next start. Closing may try to flush the rest once more,
            # hence a file of our own to cut with, after it.
            self._reopen_at(before)
            raise

    def _reopen_at(self, length: int) -> None:
        try:
            self._log.close()
        finally:
            os.truncate(self._path, length)
            self._log = self._path.open("ab")

    def _load(self) -> int:
        """Replay the log; returns how many lines it has."""
        if not self._path.exists():
            return 0
        good, number = 0, 0
        raw = self._path.read_bytes()
        for number, line in enumerate(raw.splitlines(keepends=True), start=1):
            if not line.endswith(b"\n"):
                break
            self._replay(line, number)
            good += len(line)
        if good < len(raw):
            os.truncate(self._path, good)
        return number

    def _replay(self, line: bytes, number: int) -> None:
        try:
            entry = orjson.loads(line)
            if "delete" in entry:
                for identity in entry["delete"]:
                    self._drop(identity)
                return
            vector = np.frombuffer(base64.b64decode(entry["vector"]), dtype="<f4")
            self._put(Point(entry["id"], vector, entry["payload"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptLog(f"{self._path}, line {number}: {error}") from error

    def _rewrite(self) -> None:
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            for entry in _upserts(self._points()):
                file.write(orjson.dumps(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._log.close()
        fresh.replace(self._path)
        _sync_folder(self._path.parent)
        self._log = self._path.open("ab")

    def _points(self) -> Iterator[Point]:
        for row, identity in enumerate(self._ids):
            yield Point(identity, self._matrix[row], self._payloads[row])


def _upserts(points: Iterable[Point]) -> Iterator[dict[str, Any]]:
    for point in points:
        encoded = base64.b64encode(point.vector.astype("<f4").tobytes()).decode()
        yield {"id": point.id, "vector": encoded, "payload": point.payload}


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
