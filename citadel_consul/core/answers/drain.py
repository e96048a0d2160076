"""``drain``: what an operation that drained instances came to."""

from __future__ import annotations

from dataclasses import dataclass

from citadel_consul.core.answers.instants import seconds_between
from citadel_consul.core.answers.outcomes import ExecutionResult, failed, outcome, result, share, steps_of
from citadel_consul.core.operation import Operation, OperationState, StepAction, StepState

GOOD = frozenset({"drained", "not_running"})


@dataclass(frozen=True, slots=True)
class DrainResult:
    """The result of a drain.

    A service is ``drained``, ``not_running`` (there was nothing to stop), ``failed`` or ``skipped``; ``waiting`` or
    ``draining`` in an operation that has not ended. ``instances`` (``service@node``) are those that are stopped now.
    ``success_rate`` is the share of services that came to a good end in per cent, None without services.
    """

    operation: str
    services_requested: tuple[str, ...]
    force: bool
    instances: tuple[str, ...]
    execution_results: tuple[ExecutionResult, ...]
    total_drain_time_seconds: float | None
    success_rate: float | None
    failed_services: tuple[str, ...]
    warnings: tuple[str, ...]
    operation_id: str
    state: OperationState
    detail: str


@dataclass(frozen=True, slots=True)
class DrainAnswer:
    drain_result: DrainResult


def drain_answer(operation: Operation) -> DrainAnswer:
    """What ``operation`` (with its steps) came to."""
    results = tuple(
        result(name, outcome(steps, done="drained", idle="not_running", under_way="draining"), steps)
        for name, steps in steps_of(operation, StepAction.STOP).items()
    )
    return DrainAnswer(
        DrainResult(
            operation="drain",
            services_requested=operation.targets,
            force=operation.options.force,
            instances=tuple(str(step.instance) for step in operation.steps if step.state is StepState.SUCCEEDED),
            execution_results=results,
            total_drain_time_seconds=seconds_between(operation.started_at, operation.ended_at),
            success_rate=share(results, GOOD),
            failed_services=failed(results),
            warnings=operation.warnings,
            operation_id=operation.id,
            state=operation.state,
            detail=operation.detail,
        )
    )
