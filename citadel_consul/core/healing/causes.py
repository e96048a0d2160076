"""Root cause first: which failing services have what they need, and whom a failing service takes along.

A service that fails while something fails that it cannot run without is a consequence, not a cause: restarting it does
not help, and often harms. 'Cannot run without' is a hard edge, however far down, of which too few instances serve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from citadel_consul.core.model import Condition, Edge
from citadel_consul.core.snapshot import Snapshot


class Causes:
    """Answers about causes in one snapshot, found out as they are asked for, and each once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._carried: dict[str, bool] = {}
        self._ungrounded: dict[str, bool] = {}
        self._below: dict[str, frozenset[str]] = {}

    def is_explained(self, service: str) -> bool:
        """Whether something that ``service`` cannot run without, however far down, does not serve."""
        return self._reaches(
            service, self._carried, lambda edge: edge.needed_to_run, lambda edge: not serves(self._snapshot, edge)
        )

    def is_grounded(self, service: str) -> bool:
        """Whether everything that ``service`` needs to start, however far down, is there now."""
        return not self._reaches(
            service,
            self._ungrounded,
            lambda edge: edge.needed_to_start,
            lambda edge: not self._snapshot.edge_met(edge),
        )

    def _reaches(
        self, service: str, known: dict[str, bool], follow: Callable[[Edge], bool], is_bad: Callable[[Edge], bool]
    ) -> bool:
        """Whether a walk down from ``service`` over edges to ``follow`` meets a bad one; ``known`` is filled in."""
        stack = [service]
        while stack:
            top = stack[-1]
            edges = [edge for edge in self._snapshot.graph.dependencies(top) if follow(edge)]
            unknown = [edge.dependency for edge in edges if edge.dependency not in known]
            if unknown and top not in known:
                stack += unknown
                continue
            known[top] = any(known[edge.dependency] or is_bad(edge) for edge in edges)
            stack.pop()
        return known[service]

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

    def in_order(self, services: Iterable[str]) -> tuple[str, ...]:
        """``services`` with dependencies first."""
        return tuple(self._snapshot.graph.in_start_order(sorted(services)))

    def affected_by(self, service: str, is_wanted: Callable[[str], bool], *, always: bool = False) -> tuple[str, ...]:
        """The wanted services that cannot run without ``service`` as it is, however far up, in start order.

        With ``always`` also those that have enough other instances of it at the moment.
        """
        edges = [edge for edge in self._snapshot.graph.dependents(service) if edge.needed_to_run]
        direct = [edge.service for edge in edges if always or not serves(self._snapshot, edge)]
        above = self._snapshot.graph.with_dependents(direct, lambda edge: edge.needed_to_run)
        return self.in_order(filter(is_wanted, above))


def serves(snapshot: Snapshot, edge: Edge) -> bool:
    """Whether enough instances of the dependency are healthy for the dependent to stay up.

    Also where the edge asks for less in order to start: a hung dependency explains what fails above it.
    """
    if edge.condition is Condition.COMPLETED:
        return snapshot.edge_met(edge)
    healthy = sum(snapshot.meets(i, Condition.HEALTHY) for i in snapshot.instances(edge.dependency))
    return healthy >= max(1, snapshot.needed(edge))
