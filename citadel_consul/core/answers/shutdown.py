"""``shutdown``: what an operation that stopped services came to."""

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
    slow_stops,
    steps_of,
)
from citadel_consul.core.operation import Operation, OperationState, StepAction
from citadel_consul.core.snapshot import Snapshot

GOOD = frozenset({"stopped", "not_running"})


@dataclass(frozen=True, slots=True)
class ShutdownResult:
    """The result of a shutdown.

    ``total_services`` counts what was asked for and, with ``cascade``, the running dependents. A service is
    ``stopped``, ``not_running`` (there was nothing to stop), ``failed`` or ``skipped``; ``waiting`` or ``stopping`` in
    an operation that has not ended. ``success_rate`` is the share of the first two in per cent, None without services.
    ``warnings`` names what took more than 80 % of its stop time-out.
    """

    operation: str
    services_requested: tuple[str, ...]
    graceful: bool
    cascade: bool
    total_services: int
    shutdown_sequence: tuple[SequenceEntry, ...]
    execution_results: tuple[ExecutionResult, ...]
    total_shutdown_time_seconds: float | None
    success_rate: float | None
    failed_services: tuple[str, ...]
    warnings: tuple[str, ...]
    operation_id: str
    state: OperationState
    detail: str


@dataclass(frozen=True, slots=True)
class ShutdownAnswer:
    shutdown_result: ShutdownResult


def shutdown_answer(snapshot: Snapshot, operation: Operation) -> ShutdownAnswer:
    """What ``operation`` (with its steps) came to."""
    stops = steps_of(operation, StepAction.STOP)
    results = tuple(
        result(name, outcome(steps, done="stopped", idle="not_running", under_way="stopping"), steps)
        for name, steps in stops.items()
    )
    return ShutdownAnswer(
        ShutdownResult(
            operation="shutdown",
            services_requested=operation.targets,
            graceful=operation.options.graceful,
            cascade=operation.options.cascade,
            total_services=len(stops),
            shutdown_sequence=sequence(snapshot.graph.heights(stops.keys())),
            execution_results=results,
            total_shutdown_time_seconds=seconds_between(operation.started_at, operation.ended_at),
            success_rate=share(results, GOOD),
            failed_services=failed(results),
            warnings=(*operation.warnings, *slow_stops(snapshot, results)),
            operation_id=operation.id,
            state=operation.state,
            detail=operation.detail,
        )
    )
