"""What dependents do after their dependency was recovered, short of a restart: reload, or take note."""

from __future__ import annotations

from dataclasses import replace

from citadel_consul.core.marking import fail
from citadel_consul.core.operation import Operation, Step, StepState
from citadel_consul.core.turn import Turn
from citadel_consul.core.worklist import Worklist


def begin_notify(turn: Turn, operation: Operation, work: Worklist, step: Step) -> Step:
    """Put into the history that a dependent was told, and why."""
    message = f"{step.instance} was told that {_sources(work, step)} came back"
    turn.record("dependency-recovered", message, instance=step.instance, operation=operation.id)
    return replace(step, state=StepState.SUCCEEDED, began_at=turn.now, ended_at=turn.now)


def advance_notify(turn: Turn, operation: Operation, step: Step) -> Step:
    """A notice is over as soon as it is given."""
    del operation
    return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now)


def begin_reload(turn: Turn, operation: Operation, work: Worklist, step: Step) -> Step:
    """Order a reload of what runs; a reload changes nothing of what should be, so the generation stays."""
    desired, observed = turn.snapshot.desired.get(step.instance), turn.snapshot.observed.get(step.instance)
    if desired is None or not desired.run or not turn.snapshot.is_alive(step.instance):
        return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now, detail="not running")
    number = 1 + max(desired.reloads, observed.reloads if observed is not None else 0)
    turn.set_desired(step.instance, replace(desired, reloads=number))
    message = f"{step.instance} is to reload, since {_sources(work, step)} came back"
    turn.record("dependency-recovered", message, instance=step.instance, operation=operation.id)
    return replace(step, state=StepState.RUNNING, began_at=turn.now, reloads=number, detail="")


def advance_reload(turn: Turn, operation: Operation, step: Step) -> Step:
    """See whether the node agent has carried the reload out."""
    del operation
    observed = turn.snapshot.observed.get(step.instance)
    if observed is not None and observed.reloads >= (step.reloads or 0):
        if not observed.reload_error:
            return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now)
        return fail(turn, step, observed.reload_error)
    if observed is not None and not turn.snapshot.is_alive(step.instance):
        return replace(step, state=StepState.SUCCEEDED, ended_at=turn.now, detail="ended before it was reloaded")
    deadline = (step.began_at or turn.now) + turn.snapshot.start_timeout(step.service)
    if turn.now < deadline:
        turn.wake(deadline)
        return step
    return fail(turn, step, f"not reloaded after {turn.snapshot.start_timeout(step.service):g} s")


def _sources(work: Worklist, step: Step) -> str:
    return ", ".join(sorted({work.steps[position].service for position in step.after}))
