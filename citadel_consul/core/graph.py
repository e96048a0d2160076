"""The dependency graph of a stack.

Edges point from a service to what it depends on. The graph in force never holds a cycle: an edge that would close
one is left out and reported (``GraphFault``), because a cycle can be neither started nor stopped in order. Which edge
of a cycle is the guilty one cannot be told from the graph alone, so edges are admitted in the order given (callers
pass them oldest first) and the one that closes the cycle is refused: the last good graph stays in force, also after
a failover, since the order is a fact of the KV store and not of anybody's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

from citadel_consul.core.model import Edge


@dataclass(frozen=True, slots=True)
class GraphFault:
    """An edge that is not in force, and why."""

    service: str
    dependency: str
    message: str


@dataclass(frozen=True, slots=True)
class Graph:
    """An acyclic dependency graph. Build it with :func:`build_graph`."""

    services: tuple[str, ...]
    edges: tuple[Edge, ...]
    needs: Mapping[str, tuple[Edge, ...]]
    """The edges that leave a service: what it depends on."""
    needed_by: Mapping[str, tuple[Edge, ...]]
    """The edges that arrive at a service: who depends on it."""

    def dependencies(self, service: str) -> tuple[Edge, ...]:
        return self.needs.get(service, ())

    def dependents(self, service: str) -> tuple[Edge, ...]:
        return self.needed_by.get(service, ())

    def with_dependencies(self, targets: Iterable[str], follow: Callable[[Edge], bool]) -> frozenset[str]:
        """``targets`` and all that they reach downwards over edges that ``follow`` accepts."""
        return _reach(targets, lambda service: (e.dependency for e in self.dependencies(service) if follow(e)))

    def with_dependents(self, targets: Iterable[str], follow: Callable[[Edge], bool]) -> frozenset[str]:
        """``targets`` and all that reach them over edges that ``follow`` accepts."""
        return _reach(targets, lambda service: (e.service for e in self.dependents(service) if follow(e)))

    def depths(self, within: Collection[str] | None = None) -> dict[str, int]:
        """The start rank of each service: 1 for those without dependencies, else one more than the deepest of them.

        ``within`` restricts the graph to some services. Ranks are for people to read; execution has no barriers.
        """
        chosen = self.services if within is None else [s for s in self.services if s in within]
        inside = set(chosen)
        ranks: dict[str, int] = {}
        for service in self.in_start_order(chosen):
            below = [ranks[e.dependency] for e in self.dependencies(service) if e.dependency in inside]
            ranks[service] = 1 + max(below, default=0)
        return ranks

    def heights(self, within: Collection[str] | None = None) -> dict[str, int]:
        """The stop rank of each service: 1 for those that nothing depends on, else one more than the highest."""
        chosen = self.services if within is None else [s for s in self.services if s in within]
        inside = set(chosen)
        ranks: dict[str, int] = {}
        for service in reversed(self.in_start_order(chosen)):
            above = [ranks[e.service] for e in self.dependents(service) if e.service in inside]
            ranks[service] = 1 + max(above, default=0)
        return ranks

    def in_start_order(self, services: Iterable[str]) -> list[str]:
        """``services`` with every dependency before its dependents; where there is a choice, in the order given.

        So the order does not depend on that of the edges, which is their age.
        """
        names = tuple(dict.fromkeys(services))
        places = {service: place for place, service in enumerate(names)}
        missing = {s: sum(1 for e in self.dependencies(s) if e.dependency in places) for s in names}
        ready = [places[s] for s in names if missing[s] == 0]  # ascending, and so a heap
        ordered: list[str] = []
        while ready:
            service = names[heappop(ready)]
            ordered.append(service)
            for edge in self.dependents(service):
                if edge.service in places:
                    missing[edge.service] -= 1
                    if missing[edge.service] == 0:
                        heappush(ready, places[edge.service])
        return ordered

    def critical_path(self, cost: Callable[[str], float] = lambda _service: 1.0) -> tuple[str, ...]:
        """The chain of dependencies with the largest total ``cost``: no start of the whole can be shorter."""
        total: dict[str, float] = {}
        before: dict[str, str | None] = {}
        for service in self.in_start_order(self.services):
            best = max((e.dependency for e in self.dependencies(service)), key=lambda s: total[s], default=None)
            total[service] = cost(service) + (total[best] if best is not None else 0.0)
            before[service] = best
        last = max(total, key=lambda s: total[s], default=None)
        path: list[str] = []
        while last is not None:
            path.append(last)
            last = before[last]
        return tuple(reversed(path))


def build_graph(services: Iterable[str], edges: Iterable[Edge]) -> tuple[Graph, tuple[GraphFault, ...]]:
    """The graph of ``services`` from those ``edges`` that can be in force, and a fault for each that cannot.

    Edges are admitted in the order given; pass them oldest first.
    """
    known = tuple(dict.fromkeys(services))
    names = frozenset(known)
    faults: list[GraphFault] = []
    admitted: list[Edge] = []
    for edge in edges:
        unknown = [name for name in (edge.service, edge.dependency) if name not in names]
        if unknown:
            faults.append(GraphFault(edge.service, edge.dependency, f"unknown service {unknown[0]!r}"))
        else:
            admitted.append(edge)
    graph = _assemble(known, admitted)
    if len(graph.in_start_order(known)) == len(known):
        return graph, tuple(faults)
    sound, cyclic = _without_cycles(admitted)
    return _assemble(known, sound), (*faults, *cyclic)


def find_cycles(edges: Iterable[Edge]) -> tuple[tuple[str, ...], ...]:
    """The cycles among ``edges``, each in the direction 'depends on', without repeating its first element.

    One for each edge that closes a cycle when edges are taken in order, so that mending what is reported mends all.
    """
    needs: dict[str, list[str]] = {}
    cycles: list[tuple[str, ...]] = []
    for edge in edges:
        path = _path(needs, edge.dependency, edge.service)
        if path is None:
            needs.setdefault(edge.service, []).append(edge.dependency)
        else:
            cycles.append((edge.service, *path[:-1]))
    return tuple(cycles)


def describe_cycle(cycle: tuple[str, ...]) -> str:
    """A cycle as people read it: ``a → b → a`` says that a depends on b, and b on a."""
    return " → ".join((*cycle, cycle[0]))


def _without_cycles(edges: Iterable[Edge]) -> tuple[list[Edge], list[GraphFault]]:
    needs: dict[str, list[str]] = {}
    sound: list[Edge] = []
    faults: list[GraphFault] = []
    for edge in edges:
        path = _path(needs, edge.dependency, edge.service)
        if path is None:
            needs.setdefault(edge.service, []).append(edge.dependency)
            sound.append(edge)
        else:
            cycle = describe_cycle((edge.service, *path[:-1]))
            faults.append(GraphFault(edge.service, edge.dependency, f"makes a cycle: {cycle}"))
    return sound, faults


def _assemble(services: tuple[str, ...], edges: Iterable[Edge]) -> Graph:
    needs: dict[str, list[Edge]] = {}
    needed_by: dict[str, list[Edge]] = {}
    kept = tuple(edges)
    for edge in kept:
        needs.setdefault(edge.service, []).append(edge)
        needed_by.setdefault(edge.dependency, []).append(edge)
    return Graph(
        services=services,
        edges=kept,
        needs={service: tuple(found) for service, found in needs.items()},
        needed_by={service: tuple(found) for service, found in needed_by.items()},
    )


def _reach(start: Iterable[str], step: Callable[[str], Iterable[str]]) -> frozenset[str]:
    found = dict.fromkeys(start)
    todo = list(found)
    for service in todo:  # grows while it is walked
        for other in step(service):
            if other not in found:
                found[other] = None
                todo.append(other)
    return frozenset(found)


def _path(needs: Mapping[str, list[str]], start: str, goal: str) -> list[str] | None:
    """A path of dependencies from ``start`` to ``goal``, both included, or None."""
    came_from: dict[str, str | None] = {start: None}
    todo = [start]
    for service in todo:  # grows while it is walked
        if service == goal:
            break
        for dependency in needs.get(service, ()):
            if dependency not in came_from:
                came_from[dependency] = service
                todo.append(dependency)
    if goal not in came_from:
        return None
    path = [goal]
    while (previous := came_from[path[-1]]) is not None:
        path.append(previous)
    return path[::-1]
