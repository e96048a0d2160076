"""A program that is run to its end: in a group of its own, for a bounded time, and killed with its group after that.

A program that stays behind when it ends (a daemon that a start command leaves) is not touched. Nothing is read from a
pipe, since such a daemon would hold it open for ever: the output goes into a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
from types import TracebackType
from typing import Self

from citadel_consul.backends import pidfd, procfs, spawn
from citadel_consul.backends.base import Exit
from citadel_consul.backends.family import Identity
from citadel_consul.errors import BackendUnavailable

# SIGKILL works at once unless a process is stuck in the kernel; then nothing works.
KILL_SECONDS = 5.0
_TAIL = 4096


class Errand:
    """One running program; use it as a context manager, which gives back what watching took."""

    def __init__(self, identity: Identity, descriptor: int, child: subprocess.Popen[bytes] | None) -> None:
        self.identity = identity
        self._descriptor = descriptor
        self._child = child

    @classmethod
    def begin(cls, program: spawn.Program, output: int) -> Errand:
        """Execute a program with descriptor ``output`` as both its outputs.

        Raises:
            BackendError: it cannot be executed.
            BackendUnavailable: it cannot be executed, or not be watched, at the moment.
        """
        child = spawn.execute(program, output)
        process = procfs.read(child.pid)  # not waited for yet, so it is there even if it has ended already
        descriptor = None if process is None else pidfd.open_verified(process.identity)
        if process is None or descriptor is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise BackendUnavailable(f"{program.instance}: {program.field}: process {child.pid} cannot be watched")
        return cls(process.identity, descriptor, child)

    @classmethod
    def found(cls, identity: Identity) -> Errand | None:
        """One that somebody else began; ``None`` if it is gone."""
        descriptor = pidfd.open_verified(identity)
        return None if descriptor is None else cls(identity, descriptor, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pidfd.reap(self._descriptor)
        if self._child is not None:
            # It is no longer for Popen to wait for it: not at its deletion, and not when another Popen is made.
            self._child.returncode = 0
        os.close(self._descriptor)

    async def end(self, timeout_seconds: float | None) -> Exit | None:
        """Wait for its end, and return how it ended; ``None`` if it took too long, and was killed with its group.

        A cancelled wait leaves it running.

        Raises:
            BackendUnavailable: it outlived SIGKILL.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                await pidfd.readable(self._descriptor)
        except TimeoutError:
            self._kill_group()
            await self._ended_by_force()
            return None
        return pidfd.exit_status(self._descriptor) or Exit.unknown("somebody else began it")

    def kill(self) -> None:
        """Kill it and whatever is left in its group, and hold up the loop for the millisecond until it is gone."""
        self._kill_group()
        self._has_ended(1000)

    def _has_ended(self, milliseconds: int) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(milliseconds))

    def _kill_group(self) -> None:
        # It has not been reaped, so the number of its group is still its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.identity[0], signal.SIGKILL)

    async def _ended_by_force(self) -> None:
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await pidfd.readable(self._descriptor)
        except TimeoutError:
            raise BackendUnavailable(
                f"process {self.identity[0]} does not end even on SIGKILL: it is stuck in the kernel"
            ) from None


async def run(program: spawn.Program, timeout_seconds: float) -> tuple[Exit | None, str]:
    """Run a program of which nothing is to be left, and return how it ended with the last line that it wrote.

    The end is ``None`` if it took too long, and was killed. It is killed at a cancellation, too.

    Raises:
        BackendError: it cannot be executed.
        BackendUnavailable: it cannot be executed at the moment, or it outlived SIGKILL.
    """
    output = os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        with Errand.begin(program, output) as errand:
            try:
                ended = await errand.end(timeout_seconds)
            finally:
                errand.kill()
        return ended, last_line(output)
    finally:
        os.close(output)


def last_line(descriptor: int, since: int = 0) -> str:
    """The last line with anything in it that was written behind the offset ``since``."""
    size = os.fstat(descriptor).st_size
    begin = max(since, size - _TAIL)
    text = os.pread(descriptor, max(0, size - begin), begin).decode(errors="replace")
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
