"""The two rules of order, as questions about a snapshot: what keeps an instance from starting, and from stopping.

They are asked by the leader before each step, and by whoever explains to a person why something is not happening.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from citadel_consul.core.model import Condition, Edge, Instance
from citadel_consul.core.operation import Step, StepAction
from citadel_consul.core.snapshot import Snapshot


def unmet_edges(snapshot: Snapshot, service: str, steps: Mapping[str, list[Step]]) -> tuple[Edge, ...]:
    """The edges that keep ``service`` from starting now (invariant I1).

    ``steps`` are the start steps of the operation by service: a soft edge counts only as long as its dependency is
    being started anyway.
    """
    return tuple(
        edge
        for edge in snapshot.graph.dependencies(service)
        if (edge.needed_to_start or any(not step.ended for step in steps.get(edge.dependency, ())))
        and not snapshot.edge_met(edge)
    )


def is_hopeless(snapshot: Snapshot, edge: Edge, steps: Mapping[str, list[Step]]) -> bool:
    """Whether nothing that is under way can still make ``edge`` hold: too few of its instances run or will."""
    pending = {step.instance for step in steps.get(edge.dependency, ()) if not step.ended}
    hopeful = sum(
        i in pending or snapshot.is_alive(i) or snapshot.meets(i, edge.condition)
        for i in snapshot.instances(edge.dependency)
    )
    return hopeful < max(1, snapshot.needed(edge))


@dataclass(frozen=True, slots=True)
class Holder:
    """A dependent service of which something runs, and how many instances it can spare of its dependency.

    ``unplanned`` is a running instance that the operation is not going to stop, if there is one.
    """

    edge: Edge
    spare: int
    running: tuple[Instance, ...]
    unplanned: Instance | None

    def needs(self, snapshot: Snapshot, instance: Instance) -> bool:
        """Whether ``instance`` (of the dependency) has to stay up for it; what has completed need not stay."""
        return self.edge.condition is not Condition.COMPLETED and self.spare < snapshot.meets(
            instance, self.edge.condition
        )


def holders(
    snapshot: Snapshot, service: str, stopping: Mapping[str, list[Step]], *, only_planned: bool
) -> tuple[Holder, ...]:
    """The dependents for which instances of ``service`` may have to stay up (invariant I2).

    ``stopping`` are the plain stop steps of the operation by service. With ``only_planned`` (a restart in place)
    only dependents that are to be stopped themselves are waited for. Edges that do not need their dependency to run
    give the order only among what is being stopped.
    """
    found = []
    for edge in snapshot.graph.dependents(service):
        planned = {step.instance for step in stopping.get(edge.service, ()) if not step.ended}
        bound = edge.needed_to_run and not only_planned
        if not planned and not bound:
            continue
        running = tuple(
            i
            for i in snapshot.instances(edge.service)
            if (bound or i in planned) and (snapshot.is_alive(i) or snapshot.may_have_started(i))
        )
        if running:
            unplanned = next((i for i in running if i not in planned), None)
            found.append(Holder(edge, snapshot.spare(edge), running, unplanned))
    return tuple(found)


def holding_up(
    snapshot: Snapshot, instance: Instance, stopping: Mapping[str, list[Step]], *, only_planned: bool
) -> Iterator[Instance]:
    """The running dependents for which ``instance`` has to stay up; see :func:`holders`."""
    for holder in holders(snapshot, instance.service, stopping, only_planned=only_planned):
        if holder.needs(snapshot, instance):
            yield from holder.running


def is_plain(step: Step) -> bool:
    """Whether a step is a start, or a stop that waits for no other step (those of followers do)."""
    return step.action is StepAction.START or (step.action is StepAction.STOP and not step.after)


def steps_by_service(steps: tuple[Step, ...], action: StepAction) -> dict[str, list[Step]]:
    """The plain steps with ``action``, by service."""
    found: dict[str, list[Step]] = {}
    for step in steps:
        if step.action is action and is_plain(step):
            found.setdefault(step.service, []).append(step)
    return found
