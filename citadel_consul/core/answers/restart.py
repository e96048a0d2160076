"""``restart``: what an operation that restarted services came to, their dependents included."""

from __future__ import annotations

from dataclasses import dataclass

from citadel_consul.core.answers.instants import seconds_between
from citadel_consul.core.answers.outcomes import (
    ExecutionResult,
    failed,
    outcome,
    result,
    share,
    slow_starts,
    steps_of,
)
from citadel_consul.core.operation import ALL, Operation, OperationState, Step, StepAction, StepState
from citadel_consul.core.snapshot import Snapshot

GOOD = frozenset({"restarted", "notified"})


@dataclass(frozen=True, slots=True)
class RestartResult:
    """The result of a restart.

    A service is ``restarted``, ``notified`` (a dependent whose edge asks for no more), ``failed`` or ``skipped``;
    ``waiting`` or ``restarting`` in an operation that has not ended. ``success_rate`` is the share of the first two in
    per cent, None without services. ``affected_services`` are all that need what was restarted in order to run, on
    however long a way.
    """

    operation: str
    services_requested: tuple[str, ...]
    cascade: bool
    total_services: int
    execution_results: tuple[ExecutionResult, ...]
    total_restart_time_seconds: float | None
    success_rate: float | None
    failed_services: tuple[str, ...]
    affected_services: tuple[str, ...]
    dependent_services_restarted: int
    warnings: tuple[str, ...]
    operation_id: str
    state: OperationState
    detail: str


@dataclass(frozen=True, slots=True)
class RestartAnswer:
    restart_result: RestartResult


def restart_answer(snapshot: Snapshot, operation: Operation) -> RestartAnswer:
    """What ``operation`` (with its steps) came to."""
    steps: dict[str, list[Step]] = {}
    for step in operation.steps:
        steps.setdefault(step.service, []).append(step)
    results = tuple(result(name, _word(found), found) for name, found in steps.items())
    return RestartAnswer(
        RestartResult(
            operation="restart",
            services_requested=operation.targets,
            cascade=operation.options.cascade,
            total_services=len(steps),
            execution_results=results,
            total_restart_time_seconds=seconds_between(operation.started_at, operation.ended_at),
            success_rate=share(results, GOOD),
            failed_services=failed(results),
            affected_services=affected_services(snapshot, target_services(snapshot, operation)),
            dependent_services_restarted=dependents_restarted(snapshot, operation),
            warnings=(*operation.warnings, *slow_starts(snapshot, _starts(operation))),
            operation_id=operation.id,
            state=operation.state,
            detail=operation.detail,
        )
    )


def target_services(snapshot: Snapshot, operation: Operation) -> tuple[str, ...]:
    """The services that an operation's targets name."""
    if ALL in operation.targets:
        return snapshot.graph.services
    return tuple(dict.fromkeys(target.partition("@")[0] for target in operation.targets))


def affected_services(snapshot: Snapshot, services: tuple[str, ...]) -> tuple[str, ...]:
    """Who needs any of ``services`` in order to run, however far up, in start order and without them."""
    above = snapshot.graph.with_dependents(services, lambda edge: edge.needed_to_run) - set(services)
    return tuple(snapshot.graph.in_start_order(s for s in snapshot.graph.services if s in above))


def dependents_restarted(snapshot: Snapshot, operation: Operation) -> int:
    """How many services besides its targets an operation has started again."""
    targets = set(target_services(snapshot, operation))
    return sum(
        service not in targets and all(step.state is StepState.SUCCEEDED for step in steps)
        for service, steps in steps_of(operation, StepAction.START).items()
    )


def _word(steps: list[Step]) -> str:
    if all(step.action is StepAction.NOTIFY for step in steps):
        return outcome(steps, done="notified", idle="notified", under_way="restarting")
    return outcome(steps, done="restarted", idle="restarted", under_way="restarting")


def _starts(operation: Operation) -> tuple[ExecutionResult, ...]:
    return tuple(result(name, "", found) for name, found in steps_of(operation, StepAction.START).items())
