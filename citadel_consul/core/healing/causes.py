"""Root cause first: which failing services have what they need, and whom a failing service takes along.

A service that fails while something fails that it cannot run without is a consequence, not a cause: restarting it does
not help, and often harms. 'Cannot run without' is a hard edge, however far down, of which too few instances serve.
"""

from __future__ import annotations

from citadel_consul.core.model import Condition, Edge
from citadel_consul.core.snapshot import Snapshot


class Causes:
    """Answers about causes in one snapshot; costs one walk over the graph, so make one only when something fails."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        graph = snapshot.graph
        self._carried: set[str] = set()
        self._grounded: set[str] = set()
        self._below: dict[str, frozenset[str]] = {}
        for service in graph.in_start_order(graph.services):
            edges = graph.dependencies(service)
            if any(e.needed_to_run and (e.dependency in self._carried or not serves(snapshot, e)) for e in edges):
                self._carried.add(service)
            if all(snapshot.edge_met(e) and e.dependency in self._grounded for e in edges if e.needed_to_start):
                self._grounded.add(service)

    def is_explained(self, service: str) -> bool:
        """Whether something that ``service`` cannot run without, however far down, does not serve."""
        return service in self._carried

    def is_grounded(self, service: str) -> bool:
        """Whether everything that ``service`` needs to start, however far down, is there now."""
        return service in self._grounded

    def unmet(self, service: str) -> tuple[Edge, ...]:
        """What keeps ``service`` from being started now."""
        edges = self._snapshot.graph.dependencies(service)
        return tuple(e for e in edges if e.needed_to_start and not self._snapshot.edge_met(e))

    def below(self, service: str) -> frozenset[str]:
        """All that ``service`` cannot run without, however far down."""
        found = self._below.get(service)
        if found is None:
            direct = self._snapshot.graph.with_dependencies((service,), lambda edge: edge.needed_to_run)
            found = self._below[service] = direct - {service}
        return found


def serves(snapshot: Snapshot, edge: Edge) -> bool:
    """Whether enough instances of the dependency are healthy for the dependent to stay up.

    Also where the edge asks for less in order to start: a hung dependency explains what fails above it.
    """
    if edge.condition is Condition.COMPLETED:
        return snapshot.edge_met(edge)
    healthy = sum(snapshot.meets(i, Condition.HEALTHY) for i in snapshot.instances(edge.dependency))
    return healthy >= max(1, snapshot.needed(edge))


def affected_by(snapshot: Snapshot, service: str, wanted: frozenset[str], *, always: bool = False) -> tuple[str, ...]:
    """The wanted services that cannot run without ``service`` as it is, however far up, in start order.

    With ``always`` also those that have enough other instances of it at the moment.
    """
    graph = snapshot.graph
    direct = [e.service for e in graph.dependents(service) if e.needed_to_run and (always or not serves(snapshot, e))]
    above = graph.with_dependents(direct, lambda edge: edge.needed_to_run) & wanted
    return tuple(graph.in_start_order(s for s in graph.services if s in above))
