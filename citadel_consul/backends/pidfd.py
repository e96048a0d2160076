"""Signals to, and ends of, processes that are proven by their start time.

A process descriptor (``pidfd_open(2)``, Linux 5.3) goes on meaning the same process after its number was given to
another one, and becomes readable at the moment the process ends, whoever its parent is.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import Iterable, Iterator

from citadel_consul.backends import procfs
from citadel_consul.backends.base import Exit
from citadel_consul.backends.family import Identity
from citadel_consul.backends.refusals import translated

# No such process, or by now the number of a mere thread (which of the two depends on the kernel).
_GONE = frozenset({errno.ESRCH, errno.EINVAL, errno.ENOENT})


def open_verified(identity: Identity) -> int | None:
    """A descriptor of exactly this process, for the caller to close, or ``None`` if it is gone.

    Raises:
        BackendUnavailable: no descriptor is left.
        BackendError: this kernel, or a filter of system calls, does not allow it.
    """
    pid, _ = identity
    if not _is_there(identity):
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise translated(f"cannot watch process {pid} (pidfd_open)", error) from error
    # Looked at after the opening: if the start time is right now, the descriptor cannot mean a later process.
    if _is_there(identity):
        return descriptor
    os.close(descriptor)
    return None


def send(descriptor: int, number: int) -> None:
    """Send a signal; an ended process takes none. A process of another user is left for the caller to find alive."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(descriptor, number)


def reap(descriptor: int) -> None:
    """Take note of the end of a child of ours, which is a zombie until then. Never waits."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG)


def exit_status(descriptor: int) -> Exit | None:
    """How a child of ours ended, leaving it to be reaped; ``None`` if it is none, or someone else was faster."""
    try:
        result = os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return Exit.with_status(result.si_status)
    return Exit.by_signal(result.si_status, core_dumped=result.si_code == os.CLD_DUMPED)


async def end(identities: Iterable[Identity], number: int, grace_seconds: float) -> None:
    """Send a signal to processes, and wait up to ``grace_seconds`` for their end.

    Those that are children of ours (orphans that came to us) are reaped.
    """
    with _opened(identities) as descriptors:
        for descriptor in descriptors:
            send(descriptor, number)
            send(descriptor, signal.SIGCONT)  # a stopped process takes no other signal but SIGKILL
        try:
            async with asyncio.timeout(grace_seconds):
                for descriptor in descriptors:
                    await readable(descriptor)
        except TimeoutError:
            pass
        for descriptor in descriptors:
            reap(descriptor)


async def readable(descriptor: int) -> None:
    """Wait for the end of the process behind a descriptor."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)


def _is_there(identity: Identity) -> bool:
    process = procfs.read(identity[0])
    return process is not None and process.identity == identity


@contextlib.contextmanager
def _opened(identities: Iterable[Identity]) -> Iterator[list[int]]:
    descriptors: list[int] = []
    try:
        for identity in identities:
            descriptor = open_verified(identity)
            if descriptor is not None:
                descriptors.append(descriptor)
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
