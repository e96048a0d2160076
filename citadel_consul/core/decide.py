"""decide: from what is known to what is to be done, and nothing else.

``decide(snapshot, now)`` is a pure function and level triggered: it has no memory, so from the same facts it gives the
same actions, whoever calls it and however things got there. After any prefix of its actions has been carried out, a
fresh look goes on from there. Invariants (``../../docs/architecture.md``): I1 and I2 are kept by ``rules``, I4 by the
time-outs in ``progress``; I3, I6 and I7 belong to the shell and the agents as well.
"""

from __future__ import annotations

from dataclasses import replace

from citadel_consul.core.accounting import keep_accounts
from citadel_consul.core.actions import Action
from citadel_consul.core.admission import begin
from citadel_consul.core.handback import hand_back
from citadel_consul.core.healing.heal import heal
from citadel_consul.core.operation import Operation, OperationState
from citadel_consul.core.plan import plan
from citadel_consul.core.progress import advance
from citadel_consul.core.snapshot import Snapshot
from citadel_consul.core.turn import Turn


def decide(snapshot: Snapshot, now: float) -> list[Action]:
    """The actions that the facts call for at ``now`` (unix seconds)."""
    turn = Turn(snapshot, now)
    taken = _work_off_operations(turn)
    hand_back(turn, taken)
    heal(turn, taken)
    keep_accounts(turn)
    return turn.finish()


def _work_off_operations(turn: Turn) -> list[tuple[str, frozenset[str]]]:
    """Oldest first; two operations that touch the same service never run at once, and none overtakes another.

    Returns those that are unfinished, with the services that they work on.
    """
    taken: list[tuple[str, frozenset[str]]] = []
    waiting: list[Operation] = []
    for operation in sorted(turn.snapshot.operations, key=lambda op: op.id):
        if operation.ended:
            continue
        if operation.state is OperationState.PENDING:
            waiting.append(operation)
            continue
        after = advance(turn, operation)
        if not after.ended:
            taken.append((after.id, after.scope))
    for operation in waiting:
        scope = _admit(turn, operation, taken)
        if scope:
            taken.append((operation.id, scope))
    return taken


def _admit(turn: Turn, operation: Operation, taken: list[tuple[str, frozenset[str]]]) -> frozenset[str]:
    """Begin a pending operation, or say what it waits for; returns what it keeps others from touching."""
    if operation.cancelled_by is not None:
        turn.end(operation, OperationState.CANCELLED, f"cancelled by {operation.cancelled_by} before it began")
        return frozenset()
    planned = plan(turn.snapshot, operation)
    wanted = planned.scope or frozenset(t.partition("@")[0] for t in operation.targets)
    blocker = next((other for other, scope in taken if scope & wanted), None)
    if blocker is not None:
        if operation.waits_for != blocker:
            turn.write_operation(operation, replace(operation, waits_for=blocker))
        return wanted
    return begin(turn, operation, planned)
