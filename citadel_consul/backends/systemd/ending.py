"""Ending a unit: politely, by force, and what is left of one that ended by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from signal import SIGKILL

from citadel_consul.backends.systemd.run import Run
from citadel_consul.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

Look = Callable[[Run], Awaitable[None]]

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


async def settle(run: Run, look: Look) -> None:
    """See to what is left of a unit that ended by itself: cancel systemd's own restart, end what does not end.

    If systemd was faster, what it has started is stopped: one of two restarts, and the leader has yet to decide. What
    somebody else started meanwhile is left alone.

    What is heard of a unit with ``Restart=`` may be a state on the way to another, so ``look`` has to look at it.
    An error is logged, and nobody waits any longer: systemd itself has whatever starts next wait for the end of this.
    """
    deadline = asyncio.get_running_loop().time() + run.stop_timeout_seconds
    try:
        while not run.settled.is_set():
            await look(run)
            run.changed.clear()
            if run.state.awaits_restart or (run.was_restarted_by_systemd and run.state.is_up):
                await run.bus.result(await run.bus.job(run.unit, "StopUnit"))
            elif run.settled.is_set() or run.state.is_settled or run.is_another:
                break
            else:
                async with asyncio.timeout_at(deadline):
                    await run.changed.wait()
    except TimeoutError:
        await _kill_leftovers(run)
    except (BackendError, BackendUnavailable) as error:
        _log.warning("%s: what %s left behind is left to systemd: %s", run.instance, run.unit, error)


async def _kill_leftovers(run: Run) -> None:
    try:
        await kill(run)
    except (BackendError, BackendUnavailable) as error:
        _log.warning("%s: what %s left behind does not end: %s", run.instance, run.unit, error)
