"""The output of instances: where it is, how it is bounded, how it is read.

A service writes straight into its log file, both streams into one, so that lines stay in order and an agent may die
without breaking anybody's pipe. The file is opened for appending, and nobody but the service holds it open. So it
cannot be renamed away at rotation, for the service would go on writing into the old one; it is copied and cut instead
('copytruncate'). What a service writes in the instant between the last read and the cut is lost: some lines at most,
once every ``log_bytes``. That is the price of output without a middleman.

Order of a rotation: copy to ``<log>.partial``, cut the log, move ``.1`` to ``.2`` and so on, then make the copy ``.1``.
A new ``.1`` therefore means 'cut already', which is how a follower knows, and a kill at any point loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Container, Iterator
from pathlib import Path

_CHUNK = 64 * 1024
_STALE_SECONDS = 5.0
KEPT_SECONDS = 7 * 86_400.0
"""How long the log of a service is kept that the node does not have any more."""


def log_path(state_dir: Path, stack: str, node: str, service: str) -> Path:
    """The log file of an instance; rotated ones beside it end in ``.1`` (the latest), ``.2`` and so on."""
    return state_dir.resolve() / stack / node / "logs" / f"{service}.log"


def open_for_service(path: Path, owner: tuple[int, int] | None) -> int:
    """A descriptor to hand to a service as its output, for the caller to close. Raises ``OSError``.

    ``owner`` (uid and gid) gets the file, since programs that open ``/dev/stdout`` anew need to be allowed to.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o640)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o640)
    if owner is not None:
        os.fchown(descriptor, *owner)
    return descriptor


def sweep(folder: Path, known: Container[str], *, older_than_seconds: float = KEPT_SECONDS) -> None:
    """Remove the logs in ``folder`` of services that are not ``known`` and wrote nothing for so long."""
    latest = time.time() - older_than_seconds
    for path in folder.glob("*.log*"):
        try:
            if path.name.partition(".log")[0] not in known and path.stat().st_mtime < latest:
                path.unlink()
        except OSError:
            continue


def has_outgrown(path: Path, max_bytes: int) -> bool:
    """Whether it is time for :func:`rotate`: a cheap question."""
    return _size(path) > max_bytes


def rotate(path: Path, max_bytes: int, max_files: int) -> bool:
    """Rotate a log that has outgrown ``max_bytes``; ``max_files`` counts the log itself. Whether it was rotated.

    Raises ``OSError``, e.g. when the disk is full. Nothing is lost then, and the next call tries again.
    """
    if not has_outgrown(path, max_bytes):
        return False
    if max_files > 1:
        partial = _partial(path)
        if partial.exists():  # a rotation that was killed: its copy may be the only one
            _shift(path, max_files)
        _copy(path, partial)
    os.truncate(path, 0)
    if max_files > 1:
        _shift(path, max_files)
    return True


def tail(path: Path, lines: int) -> list[str]:
    """The last ``lines`` lines of a log, without line ends; those of rotated files are not looked at.

    A log that does not exist has none.
    """
    if lines <= 0:
        return []
    try:
        with path.open("rb") as file:
            complete, rest, _ = _end_of(file.fileno(), lines)
    except FileNotFoundError:
        return []
    return [*complete, _text(rest)][-lines:] if rest else complete


async def follow(path: Path, lines: int = 0, poll_seconds: float = 0.2) -> AsyncGenerator[str, None]:
    """The last ``lines`` lines of a log, and then each line as it is completed, for ever.

    The log need not exist yet. Rotation does not lose a line (but for those that the rotation itself lost), and a log
    that was cut or replaced by somebody else is read from its new beginning.
    """
    reader = _Reader(path)
    for line in reader.begin(lines):
        yield line
    while True:
        for line in reader.new_lines():
            yield line
        await asyncio.sleep(poll_seconds)


class _Reader:
    """Where a follower stands in a log that grows, is cut and is rotated.

    Rotation goes on while one reads, so what was read counts only if afterwards no copy is being made and ``.1`` is
    still the same one, looked at in this order: a cut before the reading would show in either.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode: int | None = None
        self._rotated = _birth(_numbered(path, 1))
        self._offset = 0
        self._rest = b""

    def begin(self, lines: int) -> list[str]:
        """The last complete lines; the next call of :meth:`new_lines` goes on exactly behind them."""
        try:
            with self._path.open("rb") as file:
                self._inode = os.fstat(file.fileno()).st_ino
                complete, self._rest, self._offset = _end_of(file.fileno(), lines)
        except FileNotFoundError:
            return []
        return complete

    def new_lines(self) -> Iterator[str]:
        """What was completed since the last call."""
        yield from self._across_rotation()
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode:  # replaced, or there for the first time
                self._inode = status.st_ino
                yield from self._from_the_beginning()
            elif status.st_size < self._offset and not self._is_rotating():
                yield from self._from_the_beginning()
            while chunk := os.pread(file.fileno(), _CHUNK, self._offset):
                if self._is_rotating():
                    return
                yield from self._lines_of(chunk)

    def _is_rotating(self) -> bool:
        return _is_recent(_partial(self._path)) or _birth(_numbered(self._path, 1)) != self._rotated

    def _across_rotation(self) -> Iterator[str]:
        rotated = _birth(_numbered(self._path, 1))
        if rotated == self._rotated:
            return
        self._rotated = rotated
        if rotated is None:
            return
        with contextlib.suppress(FileNotFoundError), _numbered(self._path, 1).open("rb") as file:
            while chunk := os.pread(file.fileno(), _CHUNK, self._offset):
                yield from self._lines_of(chunk)
        yield from self._from_the_beginning()

    def _from_the_beginning(self) -> Iterator[str]:
        if self._rest:
            yield _text(self._rest)
        self._offset, self._rest = 0, b""

    def _lines_of(self, chunk: bytes) -> Iterator[str]:
        self._offset += len(chunk)
        *complete, self._rest = (self._rest + chunk).split(b"\n")
        for line in complete:
            yield _text(line)


def _end_of(descriptor: int, lines: int) -> tuple[list[str], bytes, int]:
    """The last ``lines`` complete lines, what follows them without a line end, and the offset behind it all."""
    size = start = os.fstat(descriptor).st_size
    if lines <= 0:
        return [], b"", size
    data = b""
    while start > 0 and data.count(b"\n") <= lines:
        begin = max(0, start - _CHUNK)
        data, start = os.pread(descriptor, start - begin, begin) + data, begin
    *complete, rest = data.split(b"\n")
    return [_text(line) for line in complete[-lines:]], rest, size


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode(errors="replace")


def _shift(path: Path, max_files: int) -> None:
    for number in range(max_files - 2, 0, -1):
        if _numbered(path, number).exists():
            _numbered(path, number).replace(_numbered(path, number + 1))
    _partial(path).replace(_numbered(path, 1))


def _copy(source: Path, target: Path) -> None:
    """Copy until there is no more, so that as little as can be is written between this and the cut."""
    with source.open("rb") as reading, target.open("wb") as writing:
        os.fchmod(writing.fileno(), 0o640)
        while os.sendfile(writing.fileno(), reading.fileno(), None, 16 * 1024 * 1024):
            pass


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_recent(path: Path) -> bool:
    """Whether a copy is being made; one that nobody goes on with was left by a killed agent."""
    try:
        return time.time() - path.stat().st_mtime < _STALE_SECONDS
    except FileNotFoundError:
        return False


def _birth(path: Path) -> tuple[int, int] | None:
    """What tells one rotated file from the next: inodes alone are used again at once."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
