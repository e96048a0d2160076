"""The memory of a long-running process: what the C library keeps for threads, and what the collector looks through.

glibc gives each thread an arena of its own, up to eight for each core, and returns little of what one has ever held. A
node agent looks through /proc in threads, and what one look takes (4 MB) stayed behind in each of them: in half an hour
of faults resident memory rose by a tenth, with not one object more. Two arenas, one of them the main thread's, are
enough for a process that does one thing at a time. What is free in the middle of a heap stays with the process as
well, so resident memory is the most that was ever needed at once, and creeps up with each new record. Now and then it
is given back.

Python looks for cycles of garbage among all objects when those that survived since the last time are a quarter of them.
Three quarters of a process's objects are modules, classes and functions, which stay for good: each look took tens of
milliseconds, came seldom, and what waited for it made memory creep up in steps. Set aside, they are not counted.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc

ARENAS = 2
TRIM_SECONDS = 60.0
_M_ARENA_MAX = -8


def limit_arenas(most: int = ARENAS) -> bool:
    """Have the C library make at most ``most`` arenas, if called before there are threads; returns whether it can."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has one heap for all
        return False
    return bool(mallopt(_M_ARENA_MAX, most))


def give_back_free_memory() -> bool:
    """Have the C library return to the system whatever pages it does not need; returns whether there were any."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # as above
        return False
    return bool(trim(ctypes.c_size_t(0)))


async def give_back_for_ever(every_seconds: float = TRIM_SECONDS) -> None:
    """Do so now and then, until cancelled. It takes a fifth of a millisecond, and 7 ms for 30 MB that are returned."""
    while True:
        await asyncio.sleep(every_seconds)
        give_back_free_memory()


def set_aside_what_stays() -> None:
    """Have the collector leave alone whatever there is now; call it once a process has set up all that it needs."""
    gc.freeze()
