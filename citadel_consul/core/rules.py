"""The two rules of order, as questions about a snapshot: what keeps an instance from starting, and from stopping.

They are asked by the leader before each step, and by whoever explains to a person why something is not happening.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from citadel_consul.core.model import Edge, Instance
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


def holding_up(
    snapshot: Snapshot, instance: Instance, stopping: Mapping[str, list[Step]], *, only_planned: bool
) -> Iterator[Instance]:
    """The running dependents for which ``instance`` has to stay up (invariant I2).

    ``stopping`` are the plain stop steps of the operation by service. With ``only_planned`` (a restart in place)
    only dependents that are to be stopped themselves are waited for. Edges that do not need their dependency to run
    give the order only among what is being stopped.
    """
    for edge in snapshot.graph.dependents(instance.service):
        planned = {step.instance for step in stopping.get(edge.service, ()) if not step.ended}
        bound = edge.needed_to_run and not only_planned
        if not planned and not bound:
            continue
        if snapshot.survives(edge, {instance}):
            continue
        for dependent in snapshot.instances(edge.service):
            if (bound or dependent in planned) and snapshot.is_alive(dependent):
                yield dependent


def steps_by_service(steps: tuple[Step, ...], action: StepAction) -> dict[str, list[Step]]:
    """The steps with ``action``, by service; stops that wait for other steps are not plain and are left out."""
    found: dict[str, list[Step]] = {}
    for step in steps:
        if step.action is action and (action is not StepAction.STOP or not step.after):
            found.setdefault(step.service, []).append(step)
    return found
