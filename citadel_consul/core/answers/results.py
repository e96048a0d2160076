"""The result of an operation, by its kind."""

from __future__ import annotations

from citadel_consul.core.answers.drain import DrainAnswer, drain_answer
from citadel_consul.core.answers.recovery import RecoveryAnswer, recovery_answer
from citadel_consul.core.answers.restart import RestartAnswer, restart_answer
from citadel_consul.core.answers.shutdown import ShutdownAnswer, shutdown_answer
from citadel_consul.core.answers.startup import StartupAnswer, startup_answer
from citadel_consul.core.operation import Kind, Operation
from citadel_consul.core.snapshot import Snapshot

Result = StartupAnswer | ShutdownAnswer | RestartAnswer | RecoveryAnswer | DrainAnswer


def result_of(snapshot: Snapshot, operation: Operation, now: float) -> Result:
    """What an operation that has ended (with its steps) came to; ``snapshot`` is taken after its end."""
    if operation.kind is Kind.STARTUP:
        return startup_answer(snapshot, operation)
    if operation.kind is Kind.SHUTDOWN:
        return shutdown_answer(snapshot, operation)
    if operation.kind is Kind.RESTART:
        return restart_answer(snapshot, operation)
    if operation.kind is Kind.DRAIN:
        return drain_answer(operation)
    return recovery_answer(snapshot, operation, now)
