"""Ending a unit: politely, by force, and what is left of one that ended by itself."""

from __future__ import annotations

import asyncio
import logging
from signal import SIGKILL

from citadel_consul.backends.systemd.run import Run
from citadel_consul.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

# SIGKILL works at once unless a process is stuck in the kernel (a dead network file system); then nothing works.
KILL_SECONDS = 5.0
_AGAIN_SECONDS = 0.5


async def end(run: Run, timeout_seconds: float) -> None:
    """Stop a unit, and return when nothing of it is left; kill it if that takes longer than the time-out.

    A second call joins the first, and can shorten its time-out.

    Raises:
        BackendError: systemd refuses it, or this user may not.
        BackendUnavailable: systemd does not answer, or something outlived SIGKILL.
    """
    if not run.ended.is_set():
        await _ask_to_stop(run, timeout_seconds)
    deadline = run.deadline
    if deadline is None:  # it ended by itself, and somebody sees to what is left
        await run.settled.wait()
        return
    try:
        async with asyncio.timeout_at(deadline):
            await run.settled.wait()
    except TimeoutError:
        await kill(run)


async def _ask_to_stop(run: Run, timeout_seconds: float) -> None:
    before = run.deadline
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    run.deadline = deadline if before is None else min(before, deadline)
    try:
        await run.bus.job(run.unit, "StopUnit")
    except (BackendError, BackendUnavailable):
        run.deadline = before  # it was not asked: an end of it is nothing that was ordered
        raise


async def kill(run: Run) -> None:
    """Kill every process of a unit, until nothing is left.

    Raises:
        BackendError: this user may not.
        BackendUnavailable: something outlived SIGKILL.
    """
    deadline = asyncio.get_running_loop().time() + KILL_SECONDS
    refusal: BackendError | None = None
    while not run.settled.is_set() and asyncio.get_running_loop().time() < deadline:
        try:
            await run.bus.kill(run.unit, SIGKILL)
        except BackendError as error:  # no process is left to kill, for one: then the end is only to be waited for
            refusal = error
        try:
            async with asyncio.timeout(_AGAIN_SECONDS):
                await run.settled.wait()
        except TimeoutError:
            continue
    if run.settled.is_set():
        return
    if refusal is not None:
        raise refusal
    raise BackendUnavailable(f"{run.unit} does not end even on SIGKILL: a process of it is stuck in the kernel")


async def settle(run: Run) -> None:
    """See to what is left of a unit that ended by itself: cancel systemd's own restart, end what does not end.

    An error is logged and waited out by nobody: systemd has whatever starts next wait for the end of this.
    """
    deadline = asyncio.get_running_loop().time() + run.stop_timeout_seconds
    try:
        while not run.settled.is_set():
            run.changed.clear()
            if run.state.awaits_restart:
                await run.bus.result(await run.bus.job(run.unit, "StopUnit"))
            async with asyncio.timeout_at(deadline):
                await _either(run)
    except TimeoutError:
        await _kill_leftovers(run)
    except (BackendError, BackendUnavailable) as error:
        _log.warning("%s: what %s left behind is left to systemd: %s", run.instance, run.unit, error)
    run.settled.set()


async def _either(run: Run) -> None:
    """Wait until it is settled or something is heard of it."""
    if not run.settled.is_set():
        await run.changed.wait()


async def _kill_leftovers(run: Run) -> None:
    try:
        await kill(run)
    except (BackendError, BackendUnavailable) as error:
        _log.warning("%s: what %s left behind does not end: %s", run.instance, run.unit, error)
