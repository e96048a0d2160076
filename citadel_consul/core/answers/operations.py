"""``operations``: what was requested of the stack, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass

from citadel_consul.core.answers.instants import instant_or_none, seconds_between
from citadel_consul.core.operation import Kind, Operation, OperationState, Step, StepAction, StepState


@dataclass(frozen=True, slots=True)
class StepAnswer:
    """One thing done to one instance. ``time_seconds`` is from its begin to its end, None as long as either is open.
    ``undo`` marks what a rollback added."""

    service: str
    node: str
    action: StepAction
    state: StepState
    began_at: str | None
    ended_at: str | None
    time_seconds: float | None
    detail: str
    undo: bool


@dataclass(frozen=True, slots=True)
class OperationAnswer:
    """One operation. ``total_time_seconds`` is from its begin to its end. ``waits_for`` names the operation that has
    to end before it. ``steps`` is None where steps were not asked for."""

    id: str
    kind: Kind
    targets: tuple[str, ...]
    state: OperationState
    requested_by: str
    requested_at: str | None
    started_at: str | None
    ended_at: str | None
    total_time_seconds: float | None
    waits_for: str | None
    cancelled_by: str | None
    reason: str
    detail: str
    warnings: tuple[str, ...]
    steps: tuple[StepAnswer, ...] | None


@dataclass(frozen=True, slots=True)
class OperationsAnswer:
    operations: tuple[OperationAnswer, ...]


def operations_answer(operations: tuple[Operation, ...]) -> OperationsAnswer:
    """The operations that are still remembered, newest last, without their steps."""
    return OperationsAnswer(tuple(operation_answer(operation, with_steps=False) for operation in operations))


def operation_answer(operation: Operation, *, with_steps: bool = True) -> OperationAnswer:
    """One operation as it stands."""
    return OperationAnswer(
        id=operation.id,
        kind=operation.kind,
        targets=operation.targets,
        state=operation.state,
        requested_by=operation.requested_by,
        requested_at=instant_or_none(operation.requested_at),
        started_at=instant_or_none(operation.started_at),
        ended_at=instant_or_none(operation.ended_at),
        total_time_seconds=seconds_between(operation.started_at, operation.ended_at),
        waits_for=operation.waits_for,
        cancelled_by=operation.cancelled_by,
        reason=operation.options.reason,
        detail=operation.detail,
        warnings=operation.warnings,
        steps=tuple(map(_step_answer, operation.steps)) if with_steps else None,
    )


def _step_answer(step: Step) -> StepAnswer:
    return StepAnswer(
        service=step.service,
        node=step.node,
        action=step.action,
        state=step.state,
        began_at=instant_or_none(step.began_at),
        ended_at=instant_or_none(step.ended_at),
        time_seconds=seconds_between(step.began_at, step.ended_at),
        detail=step.detail,
        undo=step.undo,
    )
