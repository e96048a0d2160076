"""``startup``: what an operation that started services came to."""

from __future__ import annotations

from dataclasses import dataclass

from citadel_consul.core.answers.instants import seconds_between
from citadel_consul.core.answers.outcomes import (
    ExecutionResult,
    SequenceEntry,
    failed,
    outcome,
    result,
    sequence,
    share,
    slow_starts,
    steps_of,
)
from citadel_consul.core.operation import Operation, OperationState, Step, StepAction, StepState
from citadel_consul.core.snapshot import Snapshot

GOOD = frozenset({"started", "already_running"})


@dataclass(frozen=True, slots=True)
class StartupResult:
    """The result of a startup.

    ``total_services`` counts what was asked for and everything that it needs. ``execution_results`` has one entry a
    service: ``started``, ``already_running``, ``failed``, ``skipped`` (something it needs did not come up, or the
    operation was given up), ``rolled_back`` (started, and stopped again because another one failed); ``waiting`` and
    ``starting`` in an operation that has not ended. ``success_rate`` is the share of the first two in per cent, None
    without services. ``warnings`` names what took more than 80 % of its start time-out.
    """

    operation: str
    services_requested: tuple[str, ...]
    total_services: int
    startup_sequence: tuple[SequenceEntry, ...]
    execution_results: tuple[ExecutionResult, ...]
    total_startup_time_seconds: float | None
    success_rate: float | None
    failed_services: tuple[str, ...]
    warnings: tuple[str, ...]
    operation_id: str
    state: OperationState
    detail: str


@dataclass(frozen=True, slots=True)
class StartupAnswer:
    startup_result: StartupResult


def startup_answer(snapshot: Snapshot, operation: Operation) -> StartupAnswer:
    """What ``operation`` (with its steps) came to."""
    starts = steps_of(operation, StepAction.START)
    undone = {
        service
        for service, steps in steps_of(operation, StepAction.STOP, undo=True).items()
        if any(step.state is StepState.SUCCEEDED for step in steps)
    }
    results = tuple(result(name, _word(name, steps, undone), steps) for name, steps in starts.items())
    return StartupAnswer(
        StartupResult(
            operation="startup",
            services_requested=operation.targets,
            total_services=len(starts),
            startup_sequence=sequence(snapshot.graph.depths(starts.keys())),
            execution_results=results,
            total_startup_time_seconds=seconds_between(operation.started_at, operation.ended_at),
            success_rate=share(results, GOOD),
            failed_services=failed(results),
            warnings=(*operation.warnings, *slow_starts(snapshot, results)),
            operation_id=operation.id,
            state=operation.state,
            detail=operation.detail,
        )
    )


def _word(service: str, steps: list[Step], undone: set[str]) -> str:
    word = outcome(steps, done="started", idle="already_running", under_way="starting")
    return "rolled_back" if word == "started" and service in undone else word
