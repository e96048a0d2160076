"""What an operation came to for each service: its steps on all nodes, taken together.

A service has failed if one of its steps has, and was skipped if one was and none failed: half a service is not what
was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from citadel_consul.core.answers.instants import seconds_between
from citadel_consul.core.operation import Operation, Step, StepAction, StepState
from citadel_consul.core.snapshot import Snapshot

SLOW_SHARE = 0.8
"""What took more than this share of its time-out 'took longer than expected'."""


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """What became of one service. ``time_seconds`` is from the begin of its first step to the end of its last, waiting
    for others not included; None if there was nothing to do. ``detail`` says why it failed or was skipped."""

    service: str
    status: str
    time_seconds: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class SequenceEntry:
    """Services of equal rank. ``parallel`` says that there are several, which then do not wait for one another."""

    order: int
    services: tuple[str, ...]
    parallel: bool


def sequence(ranks: Mapping[str, int]) -> tuple[SequenceEntry, ...]:
    """Services grouped by rank, for people to read: execution follows each service's own edges."""
    groups: dict[int, list[str]] = {}
    for service, rank in ranks.items():
        groups.setdefault(rank, []).append(service)
    return tuple(SequenceEntry(rank, tuple(groups[rank]), len(groups[rank]) > 1) for rank in sorted(groups))


def steps_of(operation: Operation, action: StepAction, *, undo: bool = False) -> dict[str, list[Step]]:
    """The steps with ``action`` by service, in the order of the plan."""
    found: dict[str, list[Step]] = {}
    for step in operation.steps:
        if step.action is action and step.undo is undo:
            found.setdefault(step.service, []).append(step)
    return found


def outcome(steps: Iterable[Step], *, done: str, idle: str, under_way: str) -> str:
    """One word for all steps of a service: ``failed``, ``skipped``, ``waiting``, or one of the three given.

    ``idle`` is the word if there was nothing to do: all that succeeded did so without an order of ours.
    """
    found = list(steps)
    states = {step.state for step in found}
    if StepState.FAILED in states:
        return "failed"
    if StepState.SKIPPED in states:
        return "skipped"
    if states == {StepState.SUCCEEDED}:
        return idle if all(step.generation is None for step in found) else done
    return "waiting" if states == {StepState.WAITING} else under_way


def result(service: str, status: str, steps: Iterable[Step]) -> ExecutionResult:
    """What became of a service, with the time it took and the first reason that its steps give."""
    found = list(steps)
    said = [s for s in found if s.detail and s.state in (StepState.FAILED, StepState.SKIPPED)]
    said.sort(key=lambda step: step.state is not StepState.FAILED)
    return ExecutionResult(service, status, duration(found), said[0].detail if said else "")


def duration(steps: Iterable[Step]) -> float | None:
    """From the begin of the first step that began to the end of the last that ended."""
    found = list(steps)
    begins = [step.began_at for step in found if step.began_at is not None]
    ends = [step.ended_at for step in found if step.ended_at is not None and step.began_at is not None]
    return seconds_between(min(begins, default=None), max(ends, default=None))


def share(results: Iterable[ExecutionResult], good: frozenset[str]) -> float | None:
    """How many per cent of the services came to a good end, to one decimal; None for none at all."""
    found = list(results)
    return round(100.0 * sum(r.status in good for r in found) / len(found), 1) if found else None


def failed(results: Iterable[ExecutionResult]) -> tuple[str, ...]:
    """The services that failed themselves; what was skipped on their account is in the results."""
    return tuple(r.service for r in results if r.status == "failed")


def slow_starts(snapshot: Snapshot, results: Iterable[ExecutionResult]) -> tuple[str, ...]:
    """A warning for each service whose start took more than :data:`SLOW_SHARE` of its time-out."""
    return _slow((r, snapshot.start_timeout(r.service)) for r in results)


def slow_stops(snapshot: Snapshot, results: Iterable[ExecutionResult]) -> tuple[str, ...]:
    """A warning for each service whose stop took more than :data:`SLOW_SHARE` of its time-out."""
    return _slow((r, snapshot.stop_timeout(r.service)) for r in results)


def _slow(timed: Iterable[tuple[ExecutionResult, float]]) -> tuple[str, ...]:
    return tuple(
        f"{r.service} took longer than expected: {r.time_seconds:g} s of the {limit:g} s it may take"
        for r, limit in timed
        if r.time_seconds is not None and r.time_seconds > SLOW_SHARE * limit
    )
