"""Working off the steps of one operation.

Each call looks at every step afresh: what has come true is marked, what has become allowed is begun, what can no
longer happen is skipped. Nothing is remembered between calls but what stands in the operation and in ``Desired``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from citadel_consul.core.draining import allowance_seconds
from citadel_consul.core.followers import advance_notify, advance_reload, begin_notify, begin_reload
from citadel_consul.core.health import hold_on
from citadel_consul.core.lifecycle import Desired, Phase
from citadel_consul.core.marking import answer_to, explain, fail, is_forgotten, skip
from citadel_consul.core.model import Condition, OnFailure
from citadel_consul.core.operation import Kind, Operation, OperationState, Step, StepAction, StepState
from citadel_consul.core.rolling import how_to_go_on, is_owed, is_rolling, timeout_seconds, waits
from citadel_consul.core.stopping import advance_stop, begin_stop
from citadel_consul.core.turn import Turn
from citadel_consul.core.wishes import drop_wish, keep_wish, stays_wanted_untaken
from citadel_consul.core.worklist import Worklist

NOT_TAKEN = "no agent took the start"


def advance(turn: Turn, operation: Operation) -> Operation:
    """Take ``operation`` as far as it can go now; returns it as it stands then."""
    work = Worklist(turn.snapshot, operation.steps)
    undoing = operation.state is OperationState.ROLLING_BACK
    _adopt(turn, operation, work)
    changed = True
    while changed:  # a step that ends here can let another begin or be skipped in the same turn
        changed = _follow_running(turn, operation, work)
        if not undoing:  # after what has failed is known, and before anything begins that should not any more
            changed |= _give_up(turn, operation, work)
        changed |= _begin_waiting(turn, operation, work)
    operation = replace(operation, steps=tuple(work.steps))
    if not undoing and _policy(turn, operation, work.steps) is OnFailure.ROLLBACK:
        return _roll_back(turn, operation)
    if all(step.ended for step in operation.steps):
        return _end(turn, operation)
    return operation


def _adopt(turn: Turn, operation: Operation, work: Worklist) -> None:
    """Take as begun what was ordered by a leader that died before it could write so.

    The order may have run its course meanwhile; without this, a start that failed would be tried again, and a
    rollback would not know of one that succeeded.
    """
    for position, step in enumerate(work.steps):
        desired = turn.snapshot.desired.get(step.instance)
        if step.state is not StepState.WAITING or step.undo or desired is None or desired.operation != operation.id:
            continue
        if step.action is (StepAction.START if desired.run else StepAction.STOP):
            begun = replace(step, state=StepState.RUNNING, began_at=turn.now, generation=desired.generation, detail="")
            _write(turn, operation, work, position, begun)


def _follow_running(turn: Turn, operation: Operation, work: Worklist) -> bool:
    """See what has become of the steps that have begun; returns whether any has ended."""
    changed = False
    for position, step in enumerate(work.steps):
        if step.state is StepState.RUNNING:
            changed |= _write(turn, operation, work, position, _ADVANCE[step.action](turn, operation, step))
    return changed


def _begin_waiting(turn: Turn, operation: Operation, work: Worklist) -> bool:
    """Begin or skip what can be by now; returns whether anything was. A failure ends the round: it may forbid more."""
    changed = False
    for position, step in enumerate(work.steps):
        if step.state is StepState.WAITING:
            after = _held(turn, operation, step) or _blocked_by_steps(step, work.steps)
            after = after or _not_its_turn(turn, operation, work, position, step)
            after = after or _BEGIN[step.action](turn, operation, work, step)
            changed |= _write(turn, operation, work, position, after)
            if after.state is StepState.FAILED:
                break
    return changed


def _write(turn: Turn, operation: Operation, work: Worklist, position: int, after: Step) -> bool:
    """Put ``after`` in its place if it is news; returns whether the state of the step has changed."""
    before = work.steps[position]
    if after == before:
        return False
    work.put(position, after)
    turn.write_step(operation, position, after, before.state)
    return after.state is not before.state


def _blocked_by_steps(step: Step, steps: list[Step]) -> Step | None:
    """What becomes of a waiting step because of the steps it comes after; None when they have all succeeded."""
    for position in step.after:
        before = steps[position]
        if before.state in (StepState.FAILED, StepState.SKIPPED):
            return skip(step, f"{before.action} of {before.instance} did not succeed")
        if not before.ended:
            return explain(step, f"waits for {before.action} of {before.instance}")
    return None


def _not_its_turn(turn: Turn, operation: Operation, work: Worklist, position: int, step: Step) -> Step | None:
    """What becomes of a stop of a rolling restart that others come before; None for anything else."""
    if step.action is not StepAction.STOP or not is_rolling(operation):
        return None
    return waits(turn.snapshot, work.roll(), position, step, force=operation.options.force)


def _held(turn: Turn, operation: Operation, step: Step) -> Step | None:
    """What becomes of a waiting step that nobody asked for when a hold stands on its instance (invariant I6)."""
    if not operation.automatic or step.action is StepAction.NOTIFY:
        return None
    hold = hold_on(turn.snapshot, step.instance, turn.now)
    return None if hold is None else skip(step, f"held by {hold.by or 'somebody'}")


# --- starting ---------------------------------------------------------------------------------------------------


def _begin_start(turn: Turn, operation: Operation, work: Worklist, step: Step) -> Step:
    snapshot, instance = turn.snapshot, step.instance
    desired = snapshot.desired.get(instance)
    if instance.service not in snapshot.specs:
        return fail(turn, step, "its spec is gone")
    runs = snapshot.is_alive(instance) or snapshot.meets(instance, Condition.COMPLETED)
    if runs and desired is not None:
        if not desired.run:
            return explain(step, "waits until its stop is done")
        if snapshot.meets(instance, Condition.HEALTHY):
            return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now, detail="already running")
        return replace(step, state=StepState.RUNNING, began_at=turn.now, detail="already starting")
    dependency = None if is_rolling(operation) else work.stops_below(instance.service)
    if dependency is not None:  # started now, it would keep that from stopping
        return explain(step, f"waits for {dependency} to be stopped")
    unmet = work.unmet(instance.service)
    if (edge := work.hopeless(instance.service)) is not None:
        reason = f"needs {edge.dependency}, which is not {edge.condition}"
        keep_wish(turn, operation, step, reason)
        return skip(step, reason)
    if unmet:
        return explain(step, f"waits for {', '.join(f'{e.dependency} to be {e.condition}' for e in unmet)}")
    if runs:
        return _take_over(turn, step)
    generation = turn.order(instance, operation, run=True, reason=str(operation.kind))
    return replace(step, state=StepState.RUNNING, began_at=turn.now, generation=generation, detail="")


def _take_over(turn: Turn, step: Step) -> Step:
    """Want what runs although its desired state was lost. It is not this operation's start, nor its to undo."""
    generation = turn.next_generation(step.instance)
    turn.set_desired(step.instance, Desired(True, generation, None, "ran without an order", wanted=True))
    return replace(step, state=StepState.RUNNING, began_at=turn.now, detail="already running")


def _advance_start(turn: Turn, operation: Operation, step: Step) -> Step:
    snapshot, instance = turn.snapshot, step.instance
    if is_forgotten(turn, step):
        return _take_over(turn, step)
    observed = answer_to(turn, step)
    if observed is not None:
        step = replace(step, executed_at=observed.started_at)
        if snapshot.meets(instance, Condition.HEALTHY):
            return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now, detail="")
        if observed.phase in (Phase.EXITED, Phase.FAILED, Phase.COMPLETED):
            return fail(turn, step, observed.detail or observed.phase)
        if observed.phase is Phase.STOPPED:
            return fail(turn, step, "was stopped while it was starting")
    deadline = (step.began_at or turn.now) + snapshot.start_timeout(instance.service)
    if turn.now < deadline:
        turn.wake(deadline)
        return step
    return fail(turn, step, _time_out_start(turn, operation, step))


def _time_out_start(turn: Turn, operation: Operation, step: Step) -> str:
    """Say why it was not ready in time."""
    seconds = turn.snapshot.start_timeout(step.service)
    observed = answer_to(turn, step)
    if observed is not None:
        return f"not healthy after {seconds:g} s; left running" + (f" ({observed.detail})" if observed.detail else "")
    _take_back(turn, operation, step)
    missing = "" if step.node in turn.snapshot.agents else f": no node agent runs on {step.node}"
    return f"not started within {seconds:g} s{missing}"


def _take_back(turn: Turn, operation: Operation, step: Step) -> None:
    """Take back an order to start that no agent has taken, so that none acts on it when nobody expects it any more."""
    desired = turn.snapshot.desired.get(step.instance)
    ours = desired is not None and desired.run and desired.operation == operation.id
    if ours and step.action is StepAction.START and answer_to(turn, step) is None:
        wanted = stays_wanted_untaken(turn, operation, step)
        turn.order(step.instance, operation, run=False, reason=NOT_TAKEN, wanted=wanted)


# --- what begins and goes on, by its action -------------------------------------------------------------------------

_BEGIN: dict[StepAction, Callable[[Turn, Operation, Worklist, Step], Step]] = {
    StepAction.START: _begin_start,
    StepAction.STOP: begin_stop,
    StepAction.RELOAD: begin_reload,
    StepAction.NOTIFY: begin_notify,
}
_ADVANCE: dict[StepAction, Callable[[Turn, Operation, Step], Step]] = {
    StepAction.START: _advance_start,
    StepAction.STOP: advance_stop,
    StepAction.RELOAD: advance_reload,
    StepAction.NOTIFY: advance_notify,
}


# --- how steps and operations end -------------------------------------------------------------------------------


def _give_up(turn: Turn, operation: Operation, work: Worklist) -> bool:
    """Skip what has not begun when the operation was cancelled, ran out of time, or a failure says to stop."""
    reason = _reason_to_stop(turn, operation, work.steps)
    if reason is None:
        return False
    timed_out = _timed_out(turn, operation)
    changed = False
    for position, step in enumerate(work.steps):
        if step.state is StepState.WAITING:
            if not timed_out and is_rolling(operation) and is_owed(work.steps, position):
                continue  # what a roll has stopped is started again, whatever comes between
            if timed_out:
                keep_wish(turn, operation, step, reason)
            elif operation.cancelled_by is not None:
                drop_wish(turn, step, reason)
            changed |= _write(turn, operation, work, position, skip(step, reason))
        elif step.state is StepState.RUNNING and timed_out:
            _take_back(turn, operation, step)
            changed |= _write(turn, operation, work, position, fail(turn, step, reason))
    return changed


def _reason_to_stop(turn: Turn, operation: Operation, steps: Iterable[Step]) -> str | None:
    if operation.cancelled_by is not None:
        return f"cancelled by {operation.cancelled_by}"
    if _timed_out(turn, operation):
        return f"the operation took longer than {timeout_of(turn, operation):g} s"
    if _policy(turn, operation, steps) in (OnFailure.KEEP, OnFailure.ROLLBACK):
        return "another service failed"
    return None


def timeout_of(turn: Turn, operation: Operation) -> float:
    """How many seconds an operation may take: its own option, or the setting for its kind."""
    defaults = turn.snapshot.defaults
    if operation.options.timeout_seconds is not None:
        return operation.options.timeout_seconds
    if operation.kind is Kind.STARTUP:
        return defaults.startup_timeout_seconds
    draining = allowance_seconds(turn.snapshot, operation)
    if operation.kind in (Kind.SHUTDOWN, Kind.DRAIN):
        return defaults.shutdown_timeout_seconds + draining
    both = defaults.startup_timeout_seconds + defaults.shutdown_timeout_seconds
    if is_rolling(operation):
        return max(both, timeout_seconds(turn.snapshot, operation))
    return both + draining


def _timed_out(turn: Turn, operation: Operation) -> bool:
    deadline = (operation.started_at or turn.now) + timeout_of(turn, operation)
    if turn.now < deadline:
        turn.wake(deadline)
        return False
    return True


def _policy(turn: Turn, operation: Operation, steps: Iterable[Step]) -> OnFailure | None:
    """The strictest policy among the services that failed to start; None while none has.

    What a restart or a recovery stopped had been running before: rolling it back would only do more harm.
    """
    failed = [s for s in steps if s.state is StepState.FAILED and s.action is StepAction.START]
    if not failed:
        return None
    policies = {turn.snapshot.specs[s.service].on_failure for s in failed if s.service in turn.snapshot.specs}
    if operation.options.on_failure is not None:
        policies = {operation.options.on_failure}
    if OnFailure.ROLLBACK in policies:
        return OnFailure.ROLLBACK if operation.kind is Kind.STARTUP else OnFailure.KEEP
    return OnFailure.KEEP if OnFailure.KEEP in policies else OnFailure.CONTINUE


def _roll_back(turn: Turn, operation: Operation) -> Operation:
    """Stop what this operation started, in the order that the graph allows; what ran before is not touched."""
    operation = replace(operation, steps=tuple(_abandoned(turn, operation)))
    started = [s for s in operation.steps if s.action is StepAction.START and s.generation is not None]
    undo = tuple(Step(s.service, s.node, StepAction.STOP, undo=True) for s in reversed(started))
    first = len(operation.steps)
    operation = replace(operation, steps=(*operation.steps, *undo))
    for position, step in enumerate(undo, start=first):
        turn.write_step(operation, position, step)
    turn.record("rollback", f"undoing the start of {len(undo)} instances", operation=operation.id)
    rolling = replace(operation, state=OperationState.ROLLING_BACK, step_count=len(operation.steps))
    return advance(turn, turn.write_operation(operation, rolling))


def _abandoned(turn: Turn, operation: Operation) -> Iterable[Step]:
    """The steps with everything that has not ended given up, because it is about to be undone."""
    for position, step in enumerate(operation.steps):
        if step.ended:
            yield step
            continue
        after = replace(step, state=StepState.SKIPPED, ended_at=turn.now, detail="another service failed")
        turn.write_step(operation, position, after, step.state)
        yield after


def _end(turn: Turn, operation: Operation) -> Operation:
    failed = [s for s in operation.steps if s.state is StepState.FAILED]
    skipped = [s for s in operation.steps if s.state is StepState.SKIPPED]
    standing = f"; {how_to_go_on(operation)}" if is_rolling(operation) else ""
    if operation.cancelled_by is not None:
        return turn.end(operation, OperationState.CANCELLED, f"cancelled by {operation.cancelled_by}{standing}")
    if not failed and not skipped:
        return turn.end(operation, OperationState.SUCCEEDED, "")
    first = (failed or skipped)[0]
    undone = ", undone" if operation.state is OperationState.ROLLING_BACK else ""
    return turn.end(
        operation, OperationState.FAILED, f"{first.action} of {first.instance}: {first.detail}{undone}{standing}"
    )
