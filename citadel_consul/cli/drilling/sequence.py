"""The order of starts and stops, proven from the history.

The node agents write what they did and saw as events, each in the very transaction that reports it. So Consul's raft
log, and no clock, says what came first: a start that was allowed by 'ready' has a higher index than that 'ready',
whichever nodes the two are on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from citadel_consul.core.model import Condition, Edge, Instance, ServiceSpec

STARTED, READY, STOPPING = "started", "ready", "stopping"
COMPLETED = "completed"
DOWN = frozenset({"stopped", "exited", "failed"})
PREFIX = "instance-"
"""What the kinds of these events begin with."""


@dataclass(frozen=True, slots=True, order=True)
class Happening:
    """One event of an instance. ``index`` is the raft index at which it was written, ``at`` unix seconds."""

    index: int
    at: float
    what: str = field(compare=False)
    instance: Instance = field(compare=False)


@dataclass(frozen=True, slots=True)
class Layout:
    """What the order is judged by: the services and the edges in force between them."""

    specs: Mapping[str, ServiceSpec]
    edges: tuple[Edge, ...]

    def instances(self, service: str) -> tuple[Instance, ...]:
        spec = self.specs.get(service)
        return spec.instances if spec is not None else ()

    def needed(self, edge: Edge) -> int:
        """How many instances of the dependency the edge asks for."""
        count = len(self.instances(edge.dependency))
        return max(1, count if edge.min_instances is None else min(edge.min_instances, count))


def start_violations(history: Iterable[Happening], layout: Layout) -> list[str]:
    """What was started too early, and what was never started. Everything was down before ``history``.

    A soft edge counts only if its dependency became what it asks for: then it was to be waited for.
    """
    happenings = sorted(history)
    came_up = {h.instance.service for h in happenings if h.what in (READY, COMPLETED)}
    state: dict[Instance, str] = {}
    found: list[str] = []
    for happening in happenings:
        if happening.what == STARTED:
            for edge in _edges_from(layout, happening.instance.service):
                if not edge.needed_to_start and edge.dependency not in came_up:
                    continue
                met = sum(_meets(edge, layout, i, state.get(i)) for i in layout.instances(edge.dependency))
                if met < layout.needed(edge):
                    found.append(f"{happening.instance} was started before {edge.dependency} was {edge.condition}")
        state[happening.instance] = happening.what
    return found + _missing(layout, {h.instance for h in happenings if h.what == STARTED}, "started")


def stop_violations(history: Iterable[Happening], layout: Layout, up: Iterable[Instance]) -> list[str]:
    """What was stopped under a running dependent, and what was never stopped. ``up`` ran before ``history``."""
    was_up = set(up)
    running, serving = set(was_up), set(was_up)
    found: list[str] = []
    stopped: set[Instance] = set()
    for happening in sorted(history):
        instance = happening.instance
        if happening.what == STOPPING:
            stopped.add(instance)
            serving.discard(instance)
            for edge in _edges_to(layout, instance.service):
                above = [i for i in layout.instances(edge.service) if i in running]
                left = sum(i in serving for i in layout.instances(edge.dependency))
                if above and edge.condition is not Condition.COMPLETED and left < layout.needed(edge):
                    found.append(f"{instance} was stopped while {above[0]} ran")
        elif happening.what in DOWN:
            running.discard(instance)
            serving.discard(instance)
    missing = sorted(was_up - stopped)
    return found + [f"{instance} was never told to stop" for instance in missing]


def judged_edges(layout: Layout) -> int:
    """How many edges bind the order of a stop."""
    return sum(edge.condition is not Condition.COMPLETED for edge in layout.edges)


def _meets(edge: Edge, layout: Layout, instance: Instance, what: str | None) -> bool:
    """Whether an instance of the dependency is what the edge asks for, by the last that was heard of it."""
    if edge.condition is Condition.COMPLETED:
        return what == COMPLETED
    if edge.condition is Condition.STARTED:
        return what in (STARTED, READY, COMPLETED)
    return what == READY or (what == COMPLETED and layout.specs[instance.service].oneshot)


def _missing(layout: Layout, seen: set[Instance], word: str) -> list[str]:
    everything = (instance for spec in layout.specs.values() for instance in spec.instances)
    return [f"the history does not show that {instance} was {word}" for instance in everything if instance not in seen]


def _edges_from(layout: Layout, service: str) -> list[Edge]:
    return _chosen(layout, lambda edge: edge.service == service)


def _edges_to(layout: Layout, service: str) -> list[Edge]:
    return _chosen(layout, lambda edge: edge.dependency == service)


def _chosen(layout: Layout, wanted: Callable[[Edge], bool]) -> list[Edge]:
    return [edge for edge in layout.edges if wanted(edge)]
