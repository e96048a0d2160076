"""The begin of an operation: planned, written, and as far along as it can get in the same turn."""

from __future__ import annotations

from dataclasses import replace

from citadel_consul.core.operation import Operation, OperationState
from citadel_consul.core.plan import Plan
from citadel_consul.core.progress import advance
from citadel_consul.core.turn import Turn


def begin(turn: Turn, operation: Operation, planned: Plan) -> frozenset[str]:
    """Begin a pending ``operation``, or end it if its plan is a refusal; returns the services that it works on."""
    if planned.refusal is not None:
        turn.end(operation, OperationState.FAILED, planned.refusal)
        return frozenset()
    running = replace(
        operation,
        state=OperationState.RUNNING,
        started_at=turn.now,
        waits_for=None,
        step_count=len(planned.steps),
        steps=planned.steps,
        warnings=(*operation.warnings, *planned.warnings),
    )
    for position, step in enumerate(planned.steps):
        turn.write_step(running, position, step)
    turn.record(f"operation-{OperationState.RUNNING}", f"{operation.kind} began", operation=operation.id)
    after = advance(turn, turn.write_operation(operation, running))
    return frozenset() if after.ended else after.scope
