"""What a backend has to remember of what a service manager runs for it, so that it survives the agent.

One small JSON file an instance, ``<state_dir>/<stack>/<node>/<kind>/<service>.json``, replaced as a whole: before the
manager is asked to start it (the *intent*: something may run), after (now it is known what), and at its end. It holds
the rendered backend of the launch too: a stop has to reach what was started, whatever the spec says by then.

(The process backend keeps a :mod:`.journal` of its own: what it has to prove is another matter.)
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from citadel_consul.backends.base import Exit, Handle
from citadel_consul.backends.journal import UnreadableRecord
from citadel_consul.core import model
from citadel_consul.core.model import Instance

_log = logging.getLogger(__name__)

_VERSION = 1
_BACKENDS: Mapping[str, Callable[..., model.Backend]] = {
    "process": model.ProcessBackend,
    "systemd": model.SystemdBackend,
    "docker": model.DockerBackend,
    "command": model.CommandBackend,
}


@dataclass(frozen=True, slots=True)
class LaunchRecord:
    """What is known of the last launch of an instance.

    ``handle`` is ``None`` until it is known what runs, and ``exit`` until its end is known. ``noted`` is how the
    manager had it before the very first launch (whether it is enabled, who restarts it), for the day it is handed back.
    """

    generation: int
    backend: model.Backend
    handle: Handle | None = None
    exit: Exit | None = None
    noted: Mapping[str, str] = field(default_factory=dict)


class Launches:
    """The records of the instances of one stack on this machine that backends of one kind have started."""

    def __init__(self, state_dir: Path, stack: str, kind: str) -> None:
        self._root = state_dir.resolve() / stack
        self._kind = kind

    def path(self, instance: Instance) -> Path:
        """Where the record of an instance is kept."""
        return self._root / instance.node / self._kind / f"{instance.service}.json"

    def read(self, instance: Instance) -> LaunchRecord | None:
        """The record of an instance, or ``None`` if there is none.

        Raises:
            UnreadableRecord: there is one that makes no sense.
        """
        path = self.path(instance)
        try:
            return _decode(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnreadableRecord(f"{path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnreadableRecord(f"{path}: {error}") from error

    def write(self, instance: Instance, record: LaunchRecord) -> None:
        """Put a record in place of the one before. Raises ``OSError``."""
        path = self.path(instance)
        data = json.dumps({"v": _VERSION, **asdict(record)}).encode()
        draft = path.with_suffix(".draft")
        try:
            descriptor = _open(draft)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            descriptor = _open(draft)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        draft.replace(path)

    def forget(self, instance: Instance) -> None:
        """Remove the record of a launch that came to nothing."""
        self.path(instance).unlink(missing_ok=True)

    def forget_ended(self, instance: Instance) -> None:
        """Remove the record of an instance whose end is on record; one that cannot be removed does no harm."""
        if self.may_run(instance):
            return
        try:
            self.forget(instance)
        except OSError as error:
            _log.warning("%s: its record %s stays: %s", instance, self.path(instance), error)

    def instances(self) -> list[Instance]:
        """Every instance that has a record, in order."""
        found = self._root.glob(f"*/{self._kind}/*.json")
        return sorted(Instance(path.stem, path.parent.parent.name) for path in found)

    def may_run(self, instance: Instance) -> bool:
        """Whether something that was started for an instance may still run: its end is not on record."""
        try:
            record = self.read(instance)
        except UnreadableRecord:
            return True
        return record is not None and record.exit is None


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _decode(value: object) -> LaunchRecord:
    if not isinstance(value, dict) or value.get("v") != _VERSION:
        raise ValueError("unknown version")
    generation, backend, handle, ended = (value[field] for field in ("generation", "backend", "handle", "exit"))
    if not isinstance(generation, int):
        raise TypeError(f"generation is {generation!r}")
    fields = {name: tuple(part) if isinstance(part, list) else part for name, part in backend.items()}
    return LaunchRecord(
        generation,
        _BACKENDS[backend["kind"]](**fields),
        None if handle is None else Handle(**handle),
        None if ended is None else Exit(**ended),
        {str(name): str(text) for name, text in value.get("noted", {}).items()},
    )
