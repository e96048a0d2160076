"""The steps of one operation while they are worked off.

A stack of 2,000 instances has 2,000 steps, and each look asks of every waiting one whether it may begin. What the
answer rests on is the same for all instances of a service, so it is found out once for a service and kept until a step
of a neighbour changes: without that, a look costs the square of the number of steps (1.9 s instead of some
milliseconds).
"""

from __future__ import annotations

from collections.abc import Iterable

from citadel_consul.core.model import Edge
from citadel_consul.core.operation import Step, StepAction
from citadel_consul.core.rolling import Progress, progress_of
from citadel_consul.core.rules import Holder, holders, is_hopeless, is_plain, unmet_edges
from citadel_consul.core.snapshot import Snapshot


class Worklist:
    """A list of steps, with those of a service at hand, and with what the rules say of it."""

    def __init__(self, snapshot: Snapshot, steps: Iterable[Step]) -> None:
        self._snapshot = snapshot
        self.steps: list[Step] = list(steps)
        """For reading: :meth:`put` changes them."""
        self.starts: dict[str, list[Step]] = {}
        self.stops: dict[str, list[Step]] = {}
        self._slots: dict[int, tuple[list[Step], int]] = {}
        self._unmet: dict[str, tuple[Edge, ...]] = {}
        self._hopeless: dict[str, Edge | None] = {}
        self._holders: dict[tuple[str, bool], tuple[Holder, ...]] = {}
        self._roll: Progress | None = None
        for position, step in enumerate(self.steps):
            if is_plain(step):
                kind = self.starts if step.action is StepAction.START else self.stops
                group = kind.setdefault(step.service, [])
                self._slots[position] = (group, len(group))
                group.append(step)

    def put(self, position: int, step: Step) -> None:
        """Take ``step`` in the place of the one at ``position``, and forget what rested on that one."""
        before, self.steps[position] = self.steps[position], step
        if position in self._slots:
            group, place = self._slots[position]
            group[place] = step
        if step.state is before.state:  # orders are given where a state changes, so nothing else has moved
            return
        self._roll = None
        graph = self._snapshot.graph
        for edge in graph.dependents(step.service):
            self._unmet.pop(edge.service, None)
            self._hopeless.pop(edge.service, None)
        for service in (step.service, *(edge.dependency for edge in graph.dependencies(step.service))):
            self._holders.pop((service, True), None)
            self._holders.pop((service, False), None)

    def roll(self) -> Progress:
        """How far a rolling restart is; see :mod:`rolling`."""
        if self._roll is None:
            self._roll = progress_of(self._snapshot, self.steps)
        return self._roll

    def stops_below(self, service: str) -> str | None:
        """A dependency of ``service`` of which something has yet to be stopped in the same operation."""
        for edge in self._snapshot.graph.dependencies(service):
            if edge.needed_to_run and any(not step.ended for step in self.stops.get(edge.dependency, ())):
                return edge.dependency
        return None

    def unmet(self, service: str) -> tuple[Edge, ...]:
        """The edges that keep ``service`` from starting now; see :func:`rules.unmet_edges`."""
        found = self._unmet.get(service)
        if found is None:
            found = self._unmet[service] = unmet_edges(self._snapshot, service, self.starts)
        return found

    def hopeless(self, service: str) -> Edge | None:
        """An edge without which ``service`` cannot start, and that nothing under way can make hold."""
        if service not in self._hopeless:
            needed = (edge for edge in self.unmet(service) if edge.needed_to_start)
            found = next((edge for edge in needed if is_hopeless(self._snapshot, edge, self.starts)), None)
            self._hopeless[service] = found
        return self._hopeless[service]

    def holders(self, service: str, *, only_planned: bool) -> tuple[Holder, ...]:
        """The dependents of ``service`` that may have to stop first; see :func:`rules.holders`."""
        found = self._holders.get((service, only_planned))
        if found is None:
            found = holders(self._snapshot, service, self.stops, only_planned=only_planned)
            self._holders[service, only_planned] = found
        return found
