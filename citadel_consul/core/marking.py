"""How steps are marked: explained while they wait, skipped or failed when they can do no more.

And what an agent's report says to the order that a step gave.
"""

from __future__ import annotations

from dataclasses import replace

from citadel_consul.core.lifecycle import Observed
from citadel_consul.core.operation import Step, StepState
from citadel_consul.core.turn import Turn


def answer_to(turn: Turn, step: Step) -> Observed | None:
    """What the node agent says of the order that this step gave; None as long as it has not spoken of it."""
    observed, desired = turn.snapshot.observed.get(step.instance), turn.snapshot.desired.get(step.instance)
    ordered = step.generation if step.generation is not None else (desired.generation if desired is not None else 0)
    return observed if observed is not None and observed.generation >= ordered else None


def is_forgotten(turn: Turn, step: Step) -> bool:
    """Whether its instance runs and nothing stands of what is wanted of it: a snapshot of Consul was restored."""
    observed = turn.snapshot.observed.get(step.instance)
    return observed is not None and observed.alive and step.instance not in turn.snapshot.desired


def explain(step: Step, detail: str) -> Step:
    """``step`` with what it waits for."""
    return step if step.detail == detail else replace(step, detail=detail)


def skip(step: Step, detail: str) -> Step:
    """``step`` given up before anything was done."""
    return replace(step, state=StepState.SKIPPED, detail=detail)


def fail(turn: Turn, step: Step, detail: str) -> Step:
    """``step`` ended badly, which goes into the history."""
    turn.record("step-failed", f"{step.action} of {step.instance} failed: {detail}", instance=step.instance)
    return replace(step, state=StepState.FAILED, ended_at=turn.now, detail=detail)
