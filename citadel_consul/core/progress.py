"""Working off the steps of one operation.

Each call looks at every step afresh: what has come true is marked, what has become allowed is begun, what can no
longer happen is skipped. Nothing is remembered between calls but what stands in the operation and in ``Desired``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import Condition, OnFailure
from citadel_consul.core.operation import (
    Kind,
    Operation,
    OperationState,
    Step,
    StepAction,
    StepState,
)
from citadel_consul.core.rules import holding_up, is_hopeless, steps_by_service, unmet_edges
from citadel_consul.core.turn import Turn

KILL_MARGIN_SECONDS = 10.0
"""How much longer than its stop time-out a stop may take: the agent kills at the time-out, and needs time to say so."""


def advance(turn: Turn, operation: Operation) -> Operation:
    """Take ``operation`` as far as it can go now; returns it as it stands then."""
    steps = list(operation.steps)
    undoing = operation.state is OperationState.ROLLING_BACK
    if not undoing:
        _give_up(turn, operation, steps)
    changed = True
    while changed:  # a step that ends here can let another begin or be skipped in the same turn
        changed = False
        for position in range(len(steps)):
            changed |= _advance_step(turn, operation, steps, position)
    operation = replace(operation, steps=tuple(steps))
    if not undoing and _policy(turn, operation) is OnFailure.ROLLBACK:
        return _roll_back(turn, operation)
    if all(step.ended for step in operation.steps):
        return _end(turn, operation)
    return operation


def _advance_step(turn: Turn, operation: Operation, steps: list[Step], position: int) -> bool:
    step = steps[position]
    if step.ended:
        return False
    if step.state is StepState.RUNNING:
        after = _ADVANCE[step.action](turn, operation, step)
    elif (blocked := _blocked_by_steps(step, steps)) is not None:
        after = blocked
    else:
        after = _BEGIN[step.action](turn, operation, steps, step)
    if after == step:
        return False
    steps[position] = after
    turn.write_step(operation, position, after, step.state)
    return after.state is not step.state


def _blocked_by_steps(step: Step, steps: list[Step]) -> Step | None:
    """What becomes of a waiting step because of the steps it comes after; None when they have all succeeded."""
    for position in step.after:
        before = steps[position]
        if before.state in (StepState.FAILED, StepState.SKIPPED):
            return _skip(step, f"{before.action} of {before.instance} did not succeed")
        if not before.ended:
            return _explain(step, f"waits for {before.action} of {before.instance}")
    return None


# --- starting ---------------------------------------------------------------------------------------------------


def _begin_start(turn: Turn, operation: Operation, steps: list[Step], step: Step) -> Step:
    snapshot, instance = turn.snapshot, step.instance
    desired = snapshot.desired.get(instance)
    if instance.service not in snapshot.specs:
        return _fail(turn, step, "its spec is gone")
    runs = snapshot.is_alive(instance) or snapshot.meets(instance, Condition.COMPLETED)
    if runs and desired is not None and desired.run:
        if snapshot.meets(instance, Condition.HEALTHY):
            return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now, detail="already running")
        generation = desired.generation if desired.operation == operation.id else None
        return replace(
            step, state=StepState.RUNNING, began_at=turn.now, generation=generation, detail="already starting"
        )
    if runs:
        return _explain(step, "waits until its stop is done")
    starts = steps_by_service(tuple(steps), StepAction.START)
    unmet = unmet_edges(snapshot, instance.service, starts)
    for edge in unmet:
        if is_hopeless(snapshot, edge, starts):
            return _skip(step, f"needs {edge.dependency}, which is not {edge.condition}")
    if unmet:
        return _explain(step, f"waits for {', '.join(f'{e.dependency} to be {e.condition}' for e in unmet)}")
    generation = turn.order(instance, operation, run=True, reason=str(operation.kind))
    return replace(step, state=StepState.RUNNING, began_at=turn.now, generation=generation, detail="")


def _advance_start(turn: Turn, operation: Operation, step: Step) -> Step:
    snapshot, instance = turn.snapshot, step.instance
    observed = _answer(turn, step)
    if observed is not None:
        step = replace(step, executed_at=observed.started_at)
        if snapshot.meets(instance, Condition.HEALTHY):
            return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now, detail="")
        if observed.phase in (Phase.EXITED, Phase.FAILED, Phase.COMPLETED):
            return _fail(turn, step, observed.detail or observed.phase)
        if observed.phase is Phase.STOPPED:
            return _fail(turn, step, "was stopped while it was starting")
    deadline = (step.began_at or turn.now) + snapshot.start_timeout(instance.service)
    if turn.now < deadline:
        turn.wake(deadline)
        return step
    return _fail(turn, step, _time_out_start(turn, operation, step))


def _time_out_start(turn: Turn, operation: Operation, step: Step) -> str:
    """Say why it was not ready in time; an order that no agent has taken is taken back, so none acts on it later."""
    seconds = turn.snapshot.start_timeout(step.service)
    observed = _answer(turn, step)
    if observed is not None:
        return f"not healthy after {seconds:g} s; left running" + (f" ({observed.detail})" if observed.detail else "")
    turn.order(step.instance, operation, run=False, reason="no agent took the start")
    missing = "" if step.node in turn.snapshot.agents else f": no node agent runs on {step.node}"
    return f"not started within {seconds:g} s{missing}"


# --- stopping ---------------------------------------------------------------------------------------------------


def _begin_stop(turn: Turn, operation: Operation, steps: list[Step], step: Step) -> Step:
    snapshot, instance = turn.snapshot, step.instance
    if snapshot.is_down(instance):
        return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now, detail="not running")
    desired = snapshot.desired.get(instance)
    if desired is not None and not desired.run:
        return replace(step, state=StepState.RUNNING, began_at=turn.now, generation=desired.generation, detail="")
    if step.undo and (desired is None or desired.operation != operation.id):
        return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now, detail="changed hands meanwhile")
    in_place = operation.kind in (Kind.RESTART, Kind.RECOVER)
    stopping = steps_by_service(tuple(steps), StepAction.STOP)
    above = sorted(set(holding_up(snapshot, instance, stopping, only_planned=in_place)))
    if above:
        planned = {s.instance for found in stopping.values() for s in found if not s.ended}
        stuck = [i for i in above if i not in planned]
        if stuck:
            return _skip(step, f"{stuck[0]} still runs and needs it")
        return _explain(step, f"waits for {', '.join(map(str, above))} to stop")
    grace = None if operation.options.graceful else 0.0
    reason = "rollback" if step.undo else str(operation.kind)
    generation = turn.order(instance, operation, run=False, reason=reason, grace_seconds=grace)
    return replace(step, state=StepState.RUNNING, began_at=turn.now, generation=generation, detail="")


def _advance_stop(turn: Turn, operation: Operation, step: Step) -> Step:
    observed = _answer(turn, step)
    if observed is not None and not observed.alive:
        return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now, detail=observed.detail)
    timeout = turn.snapshot.stop_timeout(step.service) if operation.options.graceful else 0.0
    deadline = (step.began_at or turn.now) + timeout + KILL_MARGIN_SECONDS
    if turn.now < deadline:
        turn.wake(deadline)
        return step
    silent = "" if step.node in turn.snapshot.agents else f": no node agent runs on {step.node}"
    return _fail(turn, step, f"not stopped after {timeout + KILL_MARGIN_SECONDS:g} s{silent}")


# --- telling dependents -----------------------------------------------------------------------------------------


def _begin_notify(turn: Turn, operation: Operation, steps: list[Step], step: Step) -> Step:
    sources = sorted({steps[position].service for position in step.after})
    turn.record(
        "dependency-recovered",
        f"{step.instance} was told that {', '.join(sources)} came back",
        instance=step.instance,
        operation=operation.id,
    )
    return replace(step, state=StepState.SUCCEEDED, began_at=turn.now, ended_at=turn.now)


def _advance_notify(turn: Turn, operation: Operation, step: Step) -> Step:  # noqa: ARG001
    return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now)


_BEGIN: dict[StepAction, Callable[[Turn, Operation, list[Step], Step], Step]] = {
    StepAction.START: _begin_start,
    StepAction.STOP: _begin_stop,
    StepAction.NOTIFY: _begin_notify,
}
_ADVANCE: dict[StepAction, Callable[[Turn, Operation, Step], Step]] = {
    StepAction.START: _advance_start,
    StepAction.STOP: _advance_stop,
    StepAction.NOTIFY: _advance_notify,
}


# --- how steps and operations end -------------------------------------------------------------------------------


def _answer(turn: Turn, step: Step) -> Observed | None:
    """What the node agent says of the order that this step gave; None as long as it has not spoken of it."""
    observed, desired = turn.snapshot.observed.get(step.instance), turn.snapshot.desired.get(step.instance)
    ordered = step.generation if step.generation is not None else (desired.generation if desired is not None else 0)
    return observed if observed is not None and observed.generation >= ordered else None


def _explain(step: Step, detail: str) -> Step:
    return replace(step, detail=detail)


def _skip(step: Step, detail: str) -> Step:
    return replace(step, state=StepState.SKIPPED, detail=detail)


def _fail(turn: Turn, step: Step, detail: str) -> Step:
    turn.record("step-failed", f"{step.action} of {step.instance} failed: {detail}", instance=step.instance)
    return replace(step, state=StepState.FAILED, ended_at=turn.now, detail=detail)


def _give_up(turn: Turn, operation: Operation, steps: list[Step]) -> None:
    """Skip what has not begun when the operation was cancelled, ran out of time, or a failure says to stop."""
    reason = _reason_to_stop(turn, operation)
    if reason is None:
        return
    timed_out = _timed_out(turn, operation)
    for position, step in enumerate(steps):
        after = step
        if step.state is StepState.WAITING and not step.undo:
            after = _skip(step, reason)
        elif step.state is StepState.RUNNING and timed_out:
            after = _fail(turn, step, reason)
        if after != step:
            turn.write_step(operation, position, after, step.state)
            steps[position] = after


def _reason_to_stop(turn: Turn, operation: Operation) -> str | None:
    if operation.cancelled_by is not None:
        return f"cancelled by {operation.cancelled_by}"
    if _timed_out(turn, operation):
        return f"the operation took longer than {timeout_of(turn, operation):g} s"
    if _policy(turn, operation) in (OnFailure.KEEP, OnFailure.ROLLBACK):
        return "another service failed"
    return None


def timeout_of(turn: Turn, operation: Operation) -> float:
    """How many seconds an operation may take: its own option, or the setting for its kind."""
    defaults = turn.snapshot.defaults
    if operation.options.timeout_seconds is not None:
        return operation.options.timeout_seconds
    if operation.kind is Kind.STARTUP:
        return defaults.startup_timeout_seconds
    if operation.kind is Kind.SHUTDOWN:
        return defaults.shutdown_timeout_seconds
    return defaults.startup_timeout_seconds + defaults.shutdown_timeout_seconds


def _timed_out(turn: Turn, operation: Operation) -> bool:
    deadline = (operation.started_at or turn.now) + timeout_of(turn, operation)
    if turn.now < deadline:
        turn.wake(deadline)
        return False
    return True


def _policy(turn: Turn, operation: Operation) -> OnFailure | None:
    """The strictest policy among the services that failed to start; None while none has.

    What a restart or a recovery stopped had been running before: rolling it back would only do more harm.
    """
    failed = [s for s in operation.steps if s.state is StepState.FAILED and s.action is StepAction.START]
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
    if operation.cancelled_by is not None:
        return turn.end(operation, OperationState.CANCELLED, f"cancelled by {operation.cancelled_by}")
    if not failed and not skipped:
        return turn.end(operation, OperationState.SUCCEEDED, "")
    first = (failed or skipped)[0]
    undone = ", undone" if operation.state is OperationState.ROLLING_BACK else ""
    return turn.end(operation, OperationState.FAILED, f"{first.action} of {first.instance}: {first.detail}{undone}")
