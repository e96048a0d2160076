"""Draining: an instance leaves the catalog and finishes what it has in hand before it is stopped.

A client that has looked an instance up a moment ago still comes, and a request that is under way wants its answer. So
whoever stops an instance under traffic has to (1) take it out of what clients look up, (2) wait until no client can
have it from an old answer any more, (3) wait until nothing is in flight, and only then (4) stop it. All four are the
work of the instance's own node agent: the leader gives one order, 'stop, and drain for so long at most'
(``Desired.drain_seconds``), and sees in ``Observed`` how far that is. So a drain needs no leader once it is ordered,
and a leader that dies in the middle leaves nothing behind that another would have to know.

What drains: whatever somebody asks to drain (``citadel drain``, a rolling restart), for the time that the request,
the spec or the setting names, in this order; and any graceful stop of a service whose spec names a drain time. What is
recovered is not drained, since it serves nobody well; nor is what a rollback undoes, or a kill.
"""

from __future__ import annotations

from dataclasses import replace

from citadel_consul.core.answers.instants import instant
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Instance
from citadel_consul.core.operation import Kind, Operation, Step, StepAction, StepState
from citadel_consul.core.rules import unmet_edges
from citadel_consul.core.snapshot import Snapshot
from citadel_consul.core.turn import Turn

IN_FLIGHT = "in_flight"
"""The figure of a service (``metrics`` of its spec) that says how many requests it has in hand."""
TAKEN_BACK = "the drain was taken back"


def drain_seconds(snapshot: Snapshot, operation: Operation, step: Step) -> float | None:
    """How long what ``step`` stops may drain first; None if it is not to drain at all."""
    spec = snapshot.specs.get(step.service)
    if spec is None or spec.oneshot or step.undo:
        return None
    if not operation.options.graceful or operation.kind is Kind.RECOVER:
        return None
    asked_for = operation.kind is Kind.DRAIN or operation.options.rolling
    candidates = (
        operation.options.drain_seconds,
        spec.drain_timeout_seconds,
        snapshot.defaults.drain_timeout_seconds if asked_for else None,
    )
    chosen = next((seconds for seconds in candidates if seconds is not None), 0.0)
    return chosen if chosen > 0.0 else None


def allowance_seconds(snapshot: Snapshot, operation: Operation) -> float:
    """How much longer than without it an operation may take because of what it drains.

    The instances of a service drain at the same time, and services that stop one after the other one after the other.
    """
    longest: dict[str, float] = {}
    for step in operation.steps:
        if step.action is StepAction.STOP:
            seconds = drain_seconds(snapshot, operation, step) or 0.0
            longest[step.service] = max(seconds, longest.get(step.service, 0.0))
    return sum(longest.values())


def ordered_seconds(snapshot: Snapshot, instance: Instance) -> float:
    """How long the order in force lets ``instance`` drain before it is stopped."""
    desired = snapshot.desired.get(instance)
    return 0.0 if desired is None or desired.run else desired.drain_seconds or 0.0


def is_draining(observed: Observed | None) -> bool:
    """Whether an instance is on its way out, and still works."""
    return observed is not None and observed.phase is Phase.DRAINING


def how_far(observed: Observed) -> str:
    """What a person wants to know of an instance that drains: how much is left, and until when at most."""
    until = "" if observed.drain_until is None else f" until {instant(observed.drain_until)}"
    left = "" if observed.in_flight is None else f", {observed.in_flight} in flight"
    return f"draining{until}{left}"


def take_back(turn: Turn, step: Step) -> Step | None:
    """Let what still drains serve again, because nobody wants it drained any more; None if it cannot be now."""
    instance, snapshot = step.instance, turn.snapshot
    if not is_draining(snapshot.observed.get(instance)) or unmet_edges(snapshot, instance.service, {}):
        return None
    generation = turn.next_generation(instance)
    before = snapshot.desired.get(instance)
    reloads = before.reloads if before is not None else 0
    turn.set_desired(instance, Desired(True, generation, None, TAKEN_BACK, wanted=True, reloads=reloads))
    return replace(step, state=StepState.SKIPPED, ended_at=turn.now, detail=TAKEN_BACK)
