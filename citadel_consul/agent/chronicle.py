"""The node's own history: a line for each thing that the agent did or saw, kept on the node.

It is written where the deed is done, by the one who did it, and does not depend on Consul: after an incident it tells
what happened on this node even if nothing could be reported at the time. The tests' checker reads it to prove that
nothing was started twice, out of order, or by an order of a deposed leader.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

log = logging.getLogger(__name__)

MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. ``at`` is unix seconds; ``epoch`` is that of the orders in force, ``generation`` the one acted on."""

    at: float
    what: str
    node: str
    service: str
    generation: int
    epoch: int
    pid: int | None = None
    detail: str = ""


class Chronicle:
    """Appends entries to a file, which is turned over once when it is full (``history.jsonl``, ``history.jsonl.1``)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = self._open()

    def write(self, entry: Entry) -> None:
        """Append one entry. A full disk is logged and harms nothing else."""
        document = asdict(entry)
        for optional in ("pid", "detail"):
            if not document[optional]:
                del document[optional]
        line = orjson.dumps(document) + b"\n"
        try:
            os.write(self._descriptor, line)
            if os.fstat(self._descriptor).st_size > MAX_BYTES:
                self._turn_over()
        except OSError as error:
            log.warning("the history of this node cannot be written: %s", error)

    def close(self) -> None:
        os.close(self._descriptor)

    def _turn_over(self) -> None:
        self._path.replace(self._path.with_name(self._path.name + ".1"))
        os.close(self._descriptor)
        self._descriptor = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def read_chronicle(path: Path) -> Iterator[Entry]:
    """The entries of a node, oldest first; a line that was cut off by a crash is left out."""
    for file in (path.with_name(path.name + ".1"), path):
        if not file.exists():
            continue
        for line in file.read_bytes().splitlines():
            try:
                yield Entry(**orjson.loads(line))
            except (orjson.JSONDecodeError, TypeError):
                continue
