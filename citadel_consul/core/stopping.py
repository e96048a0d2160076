"""Stopping one instance: when it may be, what is ordered, and what has become of it."""

from __future__ import annotations

from dataclasses import replace

from citadel_consul.core.draining import drain_seconds, how_far, is_draining, ordered_seconds, take_back
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.marking import answer_to, explain, fail, is_forgotten, skip
from citadel_consul.core.operation import Kind, Operation, Step, StepState
from citadel_consul.core.rolling import is_rolling
from citadel_consul.core.turn import Turn
from citadel_consul.core.wishes import RESTARTS, drop_wish, stays_wanted
from citadel_consul.core.worklist import Worklist

KILL_MARGIN_SECONDS = 10.0
"""How much longer than its stop time-out a stop may take: the agent kills at the time-out, and needs time to say so."""


def begin_stop(turn: Turn, operation: Operation, work: Worklist, step: Step) -> Step:
    """Order the stop, or say what it waits for; nothing is to be done where nothing runs."""
    snapshot, instance = turn.snapshot, step.instance
    wanted = stays_wanted(turn, operation, step)
    desired = snapshot.desired.get(instance)
    if snapshot.is_down(instance) and not wanted:
        drop_wish(turn, step, str(operation.kind))
    if desired is not None and snapshot.may_have_started(instance) and not wanted:
        return replace(step, state=StepState.RUNNING, began_at=turn.now, generation=desired.generation, detail="")
    if snapshot.is_down(instance) or (wanted and _has_died(turn, step)):
        return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now, detail="not running")
    if step.after and (waits := _restart_waits(work, step)) is not None:
        return waits
    grace = None if operation.options.graceful else 0.0
    if desired is not None and not desired.run and grace in (None, desired.grace_seconds):
        if not wanted:  # the stop that is under way may be that of a restart, which wants it up again
            drop_wish(turn, step, str(operation.kind))
        return replace(step, state=StepState.RUNNING, began_at=turn.now, generation=desired.generation, detail="")
    if step.undo and (desired is None or desired.operation != operation.id):
        return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now, detail="changed hands meanwhile")
    if is_rolling(operation):  # those who need it were asked when it got its turn
        return _order_stop(turn, operation, step)
    only_planned = _is_in_place(operation, step)
    above = [h for h in work.holders(step.service, only_planned=only_planned) if h.needs(snapshot, instance)]
    stuck = next((h.unplanned for h in above if h.unplanned is not None), None)
    if stuck is not None:
        return skip(step, f"{stuck} {'still runs' if snapshot.is_alive(stuck) else 'may have started'} and needs it")
    if above:
        return explain(step, f"waits for {', '.join(sorted(h.edge.service for h in above))} to stop")
    return _order_stop(turn, operation, step)


def _order_stop(turn: Turn, operation: Operation, step: Step) -> Step:
    reason = "rollback" if step.undo else str(operation.kind)
    grace = None if operation.options.graceful else 0.0
    generation = turn.order(
        step.instance,
        operation,
        run=False,
        reason=reason,
        grace_seconds=grace,
        drain_seconds=drain_seconds(turn.snapshot, operation, step),
        wanted=stays_wanted(turn, operation, step),
    )
    return replace(step, state=StepState.RUNNING, began_at=turn.now, generation=generation, detail="")


def _has_died(turn: Turn, step: Step) -> bool:
    """Whether it ended unasked: there is nothing to stop before it is started again."""
    observed = turn.snapshot.observed.get(step.instance)
    ended = observed is not None and observed.phase in (Phase.EXITED, Phase.FAILED)
    return ended and not turn.snapshot.is_alive(step.instance)


def _restart_waits(work: Worklist, step: Step) -> Step | None:
    """A dependent is not stopped for its restart before it could be started again; None if it could now."""
    if (edge := work.hopeless(step.service)) is not None:
        return skip(step, f"needs {edge.dependency}, which is not {edge.condition}")
    unmet = work.unmet(step.service)
    if unmet:
        return explain(step, f"waits for {', '.join(f'{e.dependency} to be {e.condition}' for e in unmet)}")
    return None


def _is_in_place(operation: Operation, step: Step) -> bool:
    """Whether dependents stay up on purpose while an instance is stopped: those of a follower do in any case."""
    if operation.kind is Kind.DRAIN:
        return operation.options.force
    return operation.kind in RESTARTS and (not operation.options.cascade or bool(step.after))


def advance_stop(turn: Turn, operation: Operation, step: Step) -> Step:
    """See whether it has stopped, how far it has drained, or whether its time is up."""
    if is_forgotten(turn, step):
        return _order_stop(turn, operation, step)
    observed = answer_to(turn, step)
    if observed is not None and not observed.alive:
        return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now, detail=observed.detail)
    if operation.kind is Kind.DRAIN and operation.cancelled_by is not None and (back := take_back(turn, step)):
        return back
    timeout = turn.snapshot.stop_timeout(step.service) if operation.options.graceful else 0.0
    timeout += ordered_seconds(turn.snapshot, step.instance)
    deadline = (step.began_at or turn.now) + timeout + KILL_MARGIN_SECONDS
    if turn.now < deadline:
        turn.wake(deadline)
        seen = turn.snapshot.observed.get(step.instance)
        return explain(step, how_far(seen) if seen is not None and is_draining(seen) else "")
    silent = "" if step.node in turn.snapshot.agents else f": no node agent runs on {step.node}"
    return fail(turn, step, f"not stopped after {timeout + KILL_MARGIN_SECONDS:g} s{silent}")
