"""A process that outlives the program which started it, told apart from a stranger with the same pid.

Pids are used again. A process is therefore known by its pid, its start time in clock ticks since boot (field 22 of
``/proc/<pid>/stat``, see proc(5)) and the boot. A pidfd is what is waited for and signalled: it keeps meaning the
same process.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
# A bound, because a process in an uninterruptible wait (a dead disk) does not even die of SIGKILL.
_KILL_SECONDS = 5.0
_DEAD_STATES = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """Which process is meant, for as long as the machine is up."""

    pid: int
    started_ticks: int
    boot: str


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of the living process ``pid``; ``None`` if there is none (a zombie does not live)."""
    try:
        # The command's name is in parentheses and may hold any character, these included: read from the last one.
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = _BOOT_ID.read_text().strip()
    except OSError:
        return None
    if not stat or stat[0] in _DEAD_STATES:
        return None
    return ProcessIdentity(pid, int(stat[19]), boot)


def find_by_argument(argument: str) -> ProcessIdentity | None:
    """A living process of this user that has exactly ``argument`` among its arguments."""
    wanted = os.fsencode(argument)
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if entry.stat().st_uid != os.getuid() or wanted not in (entry / "cmdline").read_bytes().split(b"\0"):
                continue
        except OSError:  # it ended meanwhile
            continue
        identity = identify(int(entry.name))
        if identity is not None:
            return identity
    return None


class RunningProcess:
    """A living process, child or not. Has to be closed; that does not end the process.

    Raises ProcessLookupError on creation if ``identity`` no longer lives.
    """

    def __init__(self, identity: ProcessIdentity, child: subprocess.Popen[bytes] | None = None) -> None:
        self.identity = identity
        self._child = child
        self._pidfd = os.pidfd_open(identity.pid)
        # Only now is the pid pinned, so only now does a comparison hold.
        if child is None and identify(identity.pid) != identity:
            self.close()
            raise ProcessLookupError(identity.pid)

    @classmethod
    def of_child(cls, child: subprocess.Popen[bytes]) -> Self:
        """A process that was just started; one that has ended already is a zombie until it is waited for."""
        identity = identify(child.pid) or ProcessIdentity(child.pid, 0, "")
        return cls(identity, child)

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def alive(self) -> bool:
        return identify(self.pid) == self.identity

    @property
    def exit_status(self) -> int | None:
        """Its exit status (negative: by that signal) once it has ended; ``None`` before, and if it was no child."""
        return None if self._child is None else self._child.poll()

    async def wait(self) -> None:
        """Until it has ended."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        # A file descriptor has one reader in an event loop: a copy lets several wait.
        pidfd = os.dup(self._pidfd)
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        self._reap()

    async def stop(self, timeout_seconds: float) -> None:
        """SIGTERM, and SIGKILL after ``timeout_seconds`` or when cancelled: afterwards it does not live."""
        try:
            self._signal(signal.SIGTERM)
            async with asyncio.timeout(timeout_seconds):
                await self.wait()
        except TimeoutError:
            self.kill()
            await self.wait()
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, if it still lives, and wait for the moment that the kernel takes: afterwards it does not live."""
        self._signal(signal.SIGKILL)
        select.select([self._pidfd], [], [], _KILL_SECONDS)
        self._reap()

    def close(self) -> None:
        """Let go of the process without ending it."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _signal(self, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return

    def _reap(self) -> None:
        """Take the status of a child that has ended, so that it leaves no zombie."""
        if self._child is not None:
            self._child.poll()
