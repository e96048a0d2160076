"""What a backend has to remember about its instances so that it survives the agent.

One small JSON file an instance, ``<state_dir>/<stack>/<node>/<service>.json``. It is written four times in a life:
before the program is executed (the *intent*, which says that there may be a process with this marker), after (now the
process is known), at its end, and when all that it left behind is ended. Whenever the agent is killed, one of the four
is there.

A record is written over the one before, blanks and all, with a single ``pwrite`` inside one page of the page cache,
which a kill cannot cut in two: the kernel looks for one between pages. (The usual rename over the old file does that
as well, but ext4 starts writing to disk then and there: 0.6 ms each time instead of 0.01 ms, measured, and a start
needs two.) Nothing is synced: a killed agent loses nothing that it handed to the kernel, and after a power cut the
boot id differs, so that the record is worth nothing anyway.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import Signals
from types import UnionType

from citadel_consul.backends.base import Exit, Handle
from citadel_consul.backends.family import Evidence, Identity
from citadel_consul.core.model import Instance

_VERSION = 1
_SIZE = 2048  # every record, and less than the smallest page
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class UnreadableRecord(Exception):
    """There is a record, and it makes no sense: it is either damaged or of a later version."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of the last launch of an instance.

    ``since_ticks`` is a moment just before the launch, on the clock of ``start_ticks``. ``log`` is the device and the
    inode of the file that is the program's output. ``pid`` is ``None`` until the program is known to be executed.
    ``exit`` is ``None`` until its end was seen, and ``swept`` says whether all that
    it left behind was ended, too.
    """

    generation: int
    marker: str
    boot_id: str
    since_ticks: int
    stop_signal: str
    log: tuple[int, int]
    pid: int | None = None
    start_ticks: int | None = None
    exit: Exit | None = None
    swept: bool = False

    @property
    def identity(self) -> Identity | None:
        """The main process, if it is known."""
        return None if self.pid is None or self.start_ticks is None else (self.pid, self.start_ticks)

    @property
    def evidence(self) -> Evidence:
        """What proves, after any absence, that a process belongs to this launch."""
        return Evidence(self.marker, self.since_ticks, self.log)

    @property
    def handle(self) -> Handle:
        """The main process as the agent speaks of it."""
        return Handle("process", self.pid, self.start_ticks, self.boot_id)


class Journal:
    """The records of one stack on this machine."""

    def __init__(self, state_dir: Path, stack: str) -> None:
        self._root = state_dir.resolve() / stack

    def path(self, instance: Instance) -> Path:
        """Where the record of an instance is kept."""
        return self._root / instance.node / f"{instance.service}.json"

    def place(self, instance: Instance) -> str:
        """A name for the record's place, without hyphens: the first part of each of its markers.

        It tells the processes of this state folder from those of another agent on the same machine, even if both
        use the same names.
        """
        return hashlib.sha256(bytes(self.path(instance))).hexdigest()[:16]

    def new_marker(self, instance: Instance) -> str:
        """A marker that no launch ever had."""
        return f"{self.place(instance)}-{secrets.token_hex(16)}"

    def read(self, instance: Instance) -> Record | None:
        """The record of an instance, or ``None`` if there is none.

        Raises:
            UnreadableRecord: there is one that makes no sense.
        """
        path = self.path(instance)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnreadableRecord(f"{path}: {error.strerror}") from error
        try:
            return _decode(json.loads(raw))
        except (ValueError, TypeError, KeyError) as error:
            raise UnreadableRecord(f"{path}: not a record of this version ({error})") from error

    def write(self, instance: Instance, record: Record) -> None:
        """Put a record in place of the one before. Raises ``OSError``."""
        path = self.path(instance)
        data = json.dumps({"v": _VERSION, **asdict(record)}).encode().ljust(_SIZE)
        if len(data) > _SIZE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        try:
            descriptor = os.open(path, _WRITE, 0o600)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            descriptor = os.open(path, _WRITE, 0o600)
        try:
            os.pwrite(descriptor, data, 0)
        finally:
            os.close(descriptor)

    def forget(self, instance: Instance) -> None:
        """Remove the record of a launch that came to nothing."""
        self.path(instance).unlink(missing_ok=True)

    def instances(self) -> list[Instance]:
        """Every instance that has a record, in order."""
        return sorted(Instance(path.stem, path.parent.name) for path in self._root.glob("*/*.json"))


def _decode(value: object) -> Record:
    if not isinstance(value, dict) or value.pop("v", None) != _VERSION:
        raise ValueError("unknown version")
    for name in ("generation", "since_ticks"):
        _require(value[name], int, name)
    for name in ("marker", "boot_id"):
        _require(value[name], str, name)
    for name in ("pid", "start_ticks"):
        _require(value[name], int | None, name)
    if value["stop_signal"] not in Signals.__members__:
        raise ValueError("stop_signal names no signal")
    device, inode = value.pop("log")
    ended = value.pop("exit")
    return Record(**value, log=(device, inode), exit=None if ended is None else Exit(**ended))


def _require(value: object, kind: type | UnionType, name: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}")
