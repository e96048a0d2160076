"""One process under watch: what the backend knows of it from its start or adoption to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from dataclasses import dataclass, field, replace

from citadel_consul.backends import pidfd
from citadel_consul.backends.base import Exit
from citadel_consul.backends.family import Evidence, Identity
from citadel_consul.backends.journal import Record
from citadel_consul.core.model import Instance, ProcessBackend


@dataclass(slots=True, eq=False)
class Supervised:
    """A main process and what is to happen with it.

    It passes two points, each an event: ``exited``, when the main process is known to have ended, and ``settled``,
    when nothing is left of it (or when ``failure`` says that something is). ``deadline`` is, on the clock of the
    loop, until when an ordered stop is polite; ``None`` while nobody asked for a stop. ``signalled`` says whether the
    stop signal is out: some programs take a second one for impatience.

    ``child`` is set if the main process is a child of ours. Then it stays a zombie until it is settled, so that its
    number, which names its group and its session, cannot be given away while we look for what it left behind.
    """

    instance: Instance
    record: Record
    pidfd: int
    child: subprocess.Popen[bytes] | None
    spec: ProcessBackend | None
    stop_timeout_seconds: float
    deadline: float | None = None
    known: frozenset[Identity] = frozenset()
    failure: str | None = None
    signalled: bool = False
    settling: asyncio.Task[None] | None = None
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def identity(self) -> Identity:
        """The main process."""
        if self.record.identity is None:
            raise ValueError(f"{self.instance}: under watch without a process on record")
        return self.record.identity

    @property
    def stop_signal(self) -> signal.Signals:
        """The signal that asks it to stop: that of its launch, even if the spec has changed since."""
        return signal.Signals[self.record.stop_signal]

    @property
    def evidence(self) -> Evidence:
        """What proves that a process belongs to this launch, while its main process is watched."""
        return replace(self.record.evidence, leader=self.identity, known=self.known)

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self.deadline is not None

    def note_exit(self) -> Exit:
        """Ask the kernel how the main process ended, and keep the answer. To be called once it has."""
        known = pidfd.exit_status(self.pidfd) or Exit.unknown("an earlier agent started it")
        self.record = replace(self.record, exit=known)
        return known

    def release(self) -> None:
        """Give back what watching took: the descriptor, and the zombie if there is one."""
        pidfd.reap(self.pidfd)
        if self.child:
            # It is no longer for Popen to wait for it: not at its deletion, and not when another Popen is made.
            self.child.returncode = 0
        os.close(self.pidfd)
