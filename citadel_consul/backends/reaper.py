"""The agent as the parent of last resort.

A *child subreaper* (``prctl(2)``, ``PR_SET_CHILD_SUBREAPER``) inherits the orphans of all its descendants instead of
process 1. The agent becomes one so that what a service leaves behind stays below the agent in the process tree, where
an operator looks for it, and so that it works the same as process 1 of a container, where orphans arrive in any case.
The price is that it has to reap them, or they stay zombies.

Reaping must not steal the children of others in the same process: :mod:`asyncio` and :mod:`subprocess` wait for
theirs, and would be told that they had none. So a zombie is reaped only if it is none of the backend's main processes,
is of a session other than ours (services get their own) and was a zombie at the last look already: whoever waits for
a child has reaped it by then.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Collection

from citadel_consul.backends import procfs
from citadel_consul.backends.family import Identity

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37

_libc = ctypes.CDLL(None, use_errno=True)


def is_subreaper() -> bool:
    """Whether orphans of this process's descendants come to it."""
    flag = ctypes.c_int(0)
    _libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0)
    return flag.value == 1


def set_subreaper(wanted: bool) -> None:
    """Become, or cease to be, the parent of last resort. Linux has had this since 3.4, and it needs no privilege."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class Reaper:
    """Reaps orphans that came to this process and that nobody waits for."""

    def __init__(self) -> None:
        self._zombies: set[Identity] = set()

    def sweep(self, mains: Collection[int]) -> int:
        """Reap what was a zombie at the last sweep already, and return how many. ``mains`` are left alone."""
        session = os.getsid(0)
        zombies = {
            process.identity
            for pid in procfs.children(os.getpid())
            if pid not in mains
            and (process := procfs.read(pid)) is not None
            and process.ended
            and process.session != session
        }
        due = zombies & self._zombies
        self._zombies = zombies - due
        for pid, _ in due:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        return len(due)
