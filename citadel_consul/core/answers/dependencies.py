"""``dependencies``: the graph in force, and why a service waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from citadel_consul.core.answers.instants import instant, seconds_between
from citadel_consul.core.answers.problems import StackProblem, stack_problems
from citadel_consul.core.model import Edge
from citadel_consul.core.rules import unmet_edges
from citadel_consul.core.snapshot import Snapshot

EdgeAnswer = Mapping[str, str | int | bool | None]
"""An edge, drawn from what is needed to who needs it: ``from`` (the dependency), ``to``, ``type`` (``dependency``),
``condition``, ``strength``, ``min_instances``, ``on_recovery`` as the edge has them, and ``met``: whether it holds now.
A mapping, because ``from`` cannot be the name of a field."""


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """A service as a node of the graph."""

    id: str
    type: str
    critical: bool


@dataclass(frozen=True, slots=True)
class DependencyGraph:
    """The graph in force.

    ``nodes`` are in the order of their start; ``startup_order`` and ``shutdown_order`` are their ranks, one for each
    node in the same order. ``critical_path`` is the chain that takes longest to start, by the time each service took
    when it was last started; a service of which that is not known counts as the mean of the others, and if none is
    known the longest chain is told. ``rejected_edges`` are those in the KV store that are not in force, and why.
    """

    nodes: tuple[NodeAnswer, ...]
    edges: tuple[EdgeAnswer, ...]
    startup_order: tuple[int, ...]
    shutdown_order: tuple[int, ...]
    critical_path: tuple[str, ...]
    critical_path_seconds: float | None
    rejected_edges: tuple[StackProblem, ...]


@dataclass(frozen=True, slots=True)
class DependencyAnswer:
    dependency_graph: DependencyGraph


@dataclass(frozen=True, slots=True)
class ServiceDependencies:
    """Why a service does not start, and who else goes when it goes.

    ``needs`` is everything that is started with it, ``needed_by`` everything that a shutdown of it would take down,
    both over any distance. ``waits_for`` says which of its own edges do not hold at the moment."""

    service: str
    needs: tuple[str, ...]
    needed_by: tuple[str, ...]
    waits_for: tuple[str, ...]
    start_seconds: float | None


@dataclass(frozen=True, slots=True)
class DependencyDebug:
    timestamp: str
    services: tuple[ServiceDependencies, ...]
    problems: tuple[StackProblem, ...]


@dataclass(frozen=True, slots=True)
class DependencyDebugAnswer:
    dependency_debug: DependencyDebug


def dependency_answer(snapshot: Snapshot) -> DependencyAnswer:
    """The graph as it is in force now."""
    graph = snapshot.graph
    depths, heights = graph.depths(), graph.heights()
    order = graph.in_start_order(graph.services)
    path = critical_path(snapshot)
    measured = [start_seconds(snapshot, service) for service in path]
    known = [seconds for seconds in measured if seconds is not None]
    return DependencyAnswer(
        DependencyGraph(
            nodes=tuple(NodeAnswer(n, snapshot.specs[n].type, snapshot.specs[n].critical) for n in order),
            edges=tuple(_edge(snapshot, edge) for name in order for edge in graph.dependencies(name)),
            startup_order=tuple(depths[name] for name in order),
            shutdown_order=tuple(heights[name] for name in order),
            critical_path=path,
            critical_path_seconds=round(sum(known), 3) if path and len(known) == len(path) else None,
            rejected_edges=tuple(p for p in stack_problems(snapshot, led=True) if p.kind == "edge"),
        )
    )


def dependency_debug_answer(snapshot: Snapshot, now: float, *, led: bool) -> DependencyDebugAnswer:
    """For each service what it waits for, and what hangs on it."""
    graph = snapshot.graph

    def explain(name: str) -> ServiceDependencies:
        below = graph.with_dependencies([name], lambda edge: edge.needed_to_start) - {name}
        above = graph.with_dependents([name], lambda edge: edge.needed_to_run) - {name}
        return ServiceDependencies(
            service=name,
            needs=tuple(graph.in_start_order(s for s in graph.services if s in below)),
            needed_by=tuple(graph.in_start_order(s for s in graph.services if s in above)),
            waits_for=tuple(f"{e.dependency} to be {e.condition}" for e in unmet_edges(snapshot, name, {})),
            start_seconds=start_seconds(snapshot, name),
        )

    order = graph.in_start_order(graph.services)
    return DependencyDebugAnswer(
        DependencyDebug(instant(now), tuple(map(explain, order)), stack_problems(snapshot, led=led))
    )


def critical_path(snapshot: Snapshot) -> tuple[str, ...]:
    """The chain of dependencies that takes longest to start, as far as start times are known."""
    measured = {service: start_seconds(snapshot, service) for service in snapshot.graph.services}
    known = [seconds for seconds in measured.values() if seconds is not None]
    mean = sum(known) / len(known) if known else 1.0

    def cost(service: str) -> float:
        seconds = measured[service]
        return mean if seconds is None else seconds

    return snapshot.graph.critical_path(cost)


def start_seconds(snapshot: Snapshot, service: str) -> float | None:
    """From exec to ready when it was last started, the slowest of its instances; None if that is not known."""
    found = [
        seconds_between(observed.started_at, observed.ready_at)
        for instance in snapshot.instances(service)
        if (observed := snapshot.observed.get(instance)) is not None
    ]
    return max((seconds for seconds in found if seconds is not None), default=None)


def _edge(snapshot: Snapshot, edge: Edge) -> EdgeAnswer:
    return {
        "from": edge.dependency,
        "to": edge.service,
        "type": "dependency",
        "condition": str(edge.condition),
        "strength": str(edge.strength),
        "min_instances": edge.min_instances,
        "on_recovery": str(edge.on_recovery),
        "met": snapshot.edge_met(edge),
    }
