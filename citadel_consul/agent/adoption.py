"""What to say of an instance that an earlier agent left behind: from its last report and from what is found."""

from __future__ import annotations

from dataclasses import replace

from citadel_consul.agent.vitals import unexamined
from citadel_consul.backends.base import Exit, Gone, Running
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import ServiceSpec


def found_running(seen: Observed, found: Running, now: float) -> Observed:
    """The report on what runs: ready (or draining) if it was and is the same process, else it has to prove itself."""
    same = seen.pid == found.handle.pid
    known = seen.phase in (Phase.READY, Phase.DRAINING) and same
    return replace(
        unexamined(seen),
        generation=max(found.generation, seen.generation if seen.alive else 0),
        phase=seen.phase if known else Phase.STARTING,
        since=seen.since if known else now,
        drain_until=seen.drain_until if known else None,
        in_flight=seen.in_flight if known else None,
        pid=found.handle.pid,
        unit=found.handle.unit,
        started_at=seen.started_at if same else now,
        starts=max(seen.starts, 1),
        detail="",
    )


def found_gone(seen: Observed, found: Gone, spec: ServiceSpec, now: float) -> Observed | None:
    """The report on what ended while no agent was watching; None if it says nothing new."""
    started = max(found.generation or 0, seen.generation if seen.alive else 0)
    if not seen.alive and started <= seen.generation:
        return None
    ended = found.exit or Exit.unknown("it ended while no node agent was watching")
    stopped = seen.phase in (Phase.DRAINING, Phase.STOPPING)
    return Observed(
        generation=max(started, seen.generation),
        phase=Phase.STOPPED if stopped else Phase.COMPLETED if ended.succeeded and spec.oneshot else Phase.EXITED,
        since=now,
        started_at=seen.started_at,
        exit_code=ended.code,
        exit_signal=ended.signal,
        starts=max(seen.starts, 1),
        detail=ended.detail,
        lapses=seen.lapses,
        unwatched=True,
        reloads=seen.reloads,
    )
