"""Rolling restarts: one instance at a time, so that those who need the service never notice.

The plan is a pair of steps for each instance that runs, a stop and the start after it. Which pair is next is not
planned, since instances die and come back while a roll goes on: it is found out at every look, from what stands in the
operation and what is observed, so a new leader finds the same. Four rules:

* **One at a time.** No pair begins before the one that has begun is done: stopped, started, and healthy again.
* **Dependencies first**, and within a service first what does not serve anyway, since restarting that costs nobody
  anything.
* **Dependents keep what they need.** A pair begins only if every running dependent has, without that instance, as many
  instances as its edge asks for (``min_instances``), and if all others of the service serve.
* **The first failure ends it.** What has not begun is skipped, and serves on; what has begun is seen through, also if
  the operation is cancelled, for an instance that was stopped for a roll must not stay down on account of it.

Where an edge leaves no instance to spare (one instance under a hard dependent, or an edge that needs all of them)
rolling is refused; ``force`` does it nevertheless, still one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from citadel_consul.core.draining import drain_seconds
from citadel_consul.core.graph import Graph
from citadel_consul.core.marking import explain, skip
from citadel_consul.core.model import Condition, Edge, Instance
from citadel_consul.core.operation import Kind, Operation, Step, StepAction, StepState
from citadel_consul.core.snapshot import Snapshot

MARGIN_SECONDS = 10.0
"""How much longer than its time-outs say one instance may take: orders and reports are under way for a moment too."""
MOST_NAMES = 8


def is_rolling(operation: Operation) -> bool:
    """Whether ``operation`` restarts one instance after the other."""
    return operation.kind is Kind.RESTART and operation.options.rolling


# --- planning ---------------------------------------------------------------------------------------------------


def rolled(snapshot: Snapshot, ordered: Iterable[Instance]) -> list[Instance]:
    """Those of ``ordered`` that a roll restarts: what runs or should, and does not end by itself."""
    return [i for i in ordered if not snapshot.specs[i.service].oneshot and not snapshot.is_down(i)]


def pairs(instances: Iterable[Instance]) -> tuple[Step, ...]:
    """A stop and the start after it for each of ``instances``."""
    steps: list[Step] = []
    for instance in instances:
        steps.append(Step(instance.service, instance.node, StepAction.STOP))
        steps.append(Step(instance.service, instance.node, StepAction.START, after=(len(steps) - 1,)))
    return tuple(steps)


def obstacles(snapshot: Snapshot, instances: Sequence[Instance]) -> list[str]:
    """Why no instance of some service can be taken down, though its running dependents need it: one text an edge."""
    services = dict.fromkeys(instance.service for instance in instances)
    return [
        f"{edge.service} needs {_needed(snapshot, edge)} of {len(snapshot.instances(service))} instances of {service}"
        f", of which {len(_up(snapshot, service))} {'runs' if len(_up(snapshot, service)) == 1 else 'run'}"
        for service in services
        for edge in _binding_edges(snapshot, service)
        if _never_to_spare(snapshot, edge)
    ]


def warnings(snapshot: Snapshot, instances: Sequence[Instance]) -> tuple[str, ...]:
    """What a roll of ``instances`` will do to clients, where that is not nothing."""
    alone = [i for i in instances if len(_up(snapshot, i.service)) == 1]
    return (
        *(f"{i.service} has no other instance than {i}: its clients find none while that restarts" for i in alone),
        *(f"{text}: it has to do with less while one restarts" for text in obstacles(snapshot, instances)),
    )


# --- at every look ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a roll is: what has ended it, which instance is in hand, whose turn is next (a position)."""

    failed: Step | None
    in_hand: Step | None
    next: int | None


def progress_of(snapshot: Snapshot, steps: Sequence[Step]) -> Progress:
    """How far the roll is that ``steps`` are of."""
    failed = next((step for step in steps if step.state in (StepState.FAILED, StepState.SKIPPED)), None)
    return Progress(failed, next(iter(_open_steps(steps)), None), _next(snapshot, steps))


def in_hand(steps: Sequence[Step], position: int) -> bool:
    """Whether the step at ``position`` is the start of an instance whose stop has begun."""
    after = steps[position].after
    return bool(after) and steps[after[0]].state in (StepState.RUNNING, StepState.SUCCEEDED)


def is_owed(steps: Sequence[Step], position: int) -> bool:
    """Whether the step at ``position`` starts what the roll itself has stopped, or is about to."""
    return in_hand(steps, position) and steps[steps[position].after[0]].generation is not None


def waits(snapshot: Snapshot, progress: Progress, position: int, step: Step, *, force: bool) -> Step | None:
    """What becomes of a stop whose turn it may not be yet; None if it may begin."""
    if progress.failed is not None:
        return skip(step, f"the roll ended at {progress.failed.instance}")
    if progress.next != position:
        return explain(step, "waits for its turn")  # and no more: what changes is a write for each step
    if progress.in_hand is not None:
        doing = "to stop" if progress.in_hand.action is StepAction.STOP else "to be healthy again"
        return explain(step, f"waits for {progress.in_hand.instance} {doing}")
    return _keep_what_is_needed(snapshot, step, force=force)


def timeout_seconds(snapshot: Snapshot, operation: Operation) -> float:
    """How long a roll may take: the sum of what each of its instances may."""
    return sum(
        (drain_seconds(snapshot, operation, step) or 0.0)
        + snapshot.stop_timeout(step.service)
        + snapshot.start_timeout(step.service)
        + MARGIN_SECONDS
        for step in operation.steps
        if step.action is StepAction.STOP
    )


def how_to_go_on(operation: Operation) -> str:
    """Where a roll stands that did not come to its end, and what would go on from there."""
    starts = [step for step in operation.steps if step.action is StepAction.START]
    done = sum(step.state is StepState.SUCCEEDED for step in starts)
    left = [str(step.instance) for step in starts if step.state is not StepState.SUCCEEDED]
    if not left:
        return f"{done} of {len(starts)} instances were restarted"
    names = " ".join(left[:MOST_NAMES]) + (" …" if len(left) > MOST_NAMES else "")
    return f"{done} of {len(starts)} instances were restarted; to go on: citadel restart --rolling {names}"


def _open_steps(steps: Sequence[Step]) -> Iterable[Step]:
    """The steps of the instance in hand that have not ended."""
    for position, step in enumerate(steps):
        if step.state is StepState.RUNNING or (step.state is StepState.WAITING and in_hand(steps, position)):
            yield step


def _next(snapshot: Snapshot, steps: Sequence[Step]) -> int | None:
    """The stop whose turn is next: of the lowest service that has one, and there of what does not serve."""
    waiting = [n for n, step in enumerate(steps) if step.action is StepAction.STOP and step.state is StepState.WAITING]
    if not waiting:
        return None
    lowest = _lowest(snapshot.graph, dict.fromkeys(steps[n].service for n in waiting))
    own = [n for n in waiting if steps[n].service == lowest]
    return next((n for n in own if not snapshot.meets(steps[n].instance, Condition.HEALTHY)), own[0])


def _lowest(graph: Graph, services: Iterable[str]) -> str:
    names = list(services)
    return graph.in_start_order(names)[0]


def _keep_what_is_needed(snapshot: Snapshot, step: Step, *, force: bool) -> Step | None:
    """What becomes of the next stop, given those who need its instance; None if they can do without it."""
    instance = step.instance
    if snapshot.meets(instance, Condition.HEALTHY):
        for other in _up(snapshot, instance.service):
            if other == instance or snapshot.meets(other, Condition.HEALTHY):
                continue
            if snapshot.is_alive(other):
                return explain(step, f"waits for {other} to be healthy")
            if not force:
                return skip(step, f"{other} does not run: mend that first")
    for edge in _binding_edges(snapshot, instance.service):
        if not snapshot.meets(instance, edge.condition) or snapshot.spare(edge) >= 1:
            continue
        hopeful = sum(snapshot.is_alive(i) for i in snapshot.instances(instance.service) if i != instance)
        if hopeful >= _needed(snapshot, edge):
            return explain(step, f"waits until {edge.service} has enough of {instance.service} without it")
        if not force:
            needed = _needed(snapshot, edge)
            return skip(
                step, f"{edge.service} needs {needed} of {instance.service}, and without it {hopeful} would run"
            )
    return None


def _binding_edges(snapshot: Snapshot, service: str) -> list[Edge]:
    """The edges of running dependents that need ``service`` in order to run."""
    return [
        edge
        for edge in snapshot.graph.dependents(service)
        if edge.needed_to_run
        and edge.condition is not Condition.COMPLETED
        and any(snapshot.is_alive(i) for i in snapshot.instances(edge.service))
    ]


def _never_to_spare(snapshot: Snapshot, edge: Edge) -> bool:
    return len(_up(snapshot, edge.dependency)) - 1 < _needed(snapshot, edge)


def _needed(snapshot: Snapshot, edge: Edge) -> int:
    return max(1, snapshot.needed(edge))


def _up(snapshot: Snapshot, service: str) -> list[Instance]:
    """The instances of a service that run or should."""
    return [i for i in snapshot.instances(service) if not snapshot.is_down(i)]
