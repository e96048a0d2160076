"""What is wanted although it does not run: the wish outlives the operation that could not fulfil it.

An operation ends, whatever happens. Where it skipped a start because a dependency failed or its time was up, the
service stays wanted and is started when that can be done (``core.healing.revival``). What a person took back, by a
cancellation, a shutdown, or a failure policy that undoes or stops everything, is not.
"""

from __future__ import annotations

from citadel_consul.core.operation import Kind, Operation, Step, StepAction
from citadel_consul.core.turn import Turn

RESTARTS = frozenset({Kind.RESTART, Kind.RECOVER})


def keep_wish(turn: Turn, operation: Operation, step: Step, reason: str) -> None:
    """Remember that a start which was skipped is still wanted."""
    if step.action is StepAction.START and operation.cancelled_by is None:
        turn.want(step.instance, wanted=True, reason=reason)


def drop_wish(turn: Turn, step: Step, reason: str) -> None:
    """Forget that something which does not run was wanted."""
    if turn.snapshot.desired.get(step.instance) is not None:
        turn.want(step.instance, wanted=False, reason=reason)


def stays_wanted(turn: Turn, operation: Operation, step: Step) -> bool:
    """Whether what ``step`` stops is wanted up again: what a restart takes down is."""
    desired = turn.snapshot.desired.get(step.instance)
    return operation.kind in RESTARTS and not step.undo and desired is not None and (desired.run or desired.wanted)


def stays_wanted_untaken(turn: Turn, operation: Operation, step: Step) -> bool:
    """Whether a start that no node agent took is still wanted: it is if there was none, or if it ran before."""
    if operation.cancelled_by is not None:
        return False
    return operation.kind in RESTARTS or step.node not in turn.snapshot.agents
