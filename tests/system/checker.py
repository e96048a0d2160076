"""Reads what the node agents wrote down, and holds it against the invariants.

What an agent wrote is not all there is: services write their own lives down, and operations are documents. Where two
witnesses speak of the same thing, both are heard.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from citadel_consul.agent.chronicle import Entry
from citadel_consul.core.model import Edge, Instance
from citadel_consul.core.operation import Kind, Operation, StepAction

DOWN = frozenset({"exited", "stopped", "completed"})


@dataclass(frozen=True, slots=True)
class Life:
    """One process of a tiny service, as it wrote it down itself."""

    at: float
    pid: int
    generation: int


def read_ledger(path: Path) -> list[Life]:
    """The lives of one instance, oldest first."""
    if not path.exists():
        return []
    rows = (line.split() for line in path.read_text().splitlines())
    return [Life(float(at), int(pid), int(generation)) for at, pid, generation in rows]


def violations(
    entries: Iterable[Entry],
    edges: Iterable[Edge],
    *,
    instances: Mapping[str, int] | None = None,
    in_place: Callable[[Entry], bool] = lambda _: False,
) -> list[str]:
    """Everything in the histories of the nodes that an invariant forbids; edges with condition 'healthy' are judged.

    ``instances`` says how many each service has (1 if it is not named); ``in_place`` tells a stop that was meant to
    leave dependents running (see :func:`stops_in_place`).
    """
    history = sorted(entries, key=lambda entry: entry.at)
    order = _Order(tuple(edges), instances or {}, in_place)
    return [
        *_started_twice(history),
        *_stopped_twice(history),
        *order.violations(history),
        *_by_the_deposed(history),
    ]


def _started_twice(history: list[Entry]) -> Iterable[str]:
    seen: set[tuple[Instance, int]] = set()
    for entry in history:
        key = (Instance(entry.service, entry.node), entry.generation)
        if entry.what == "started":
            if key in seen:
                yield f"{key[0]} was started twice for generation {key[1]}"
            seen.add(key)


def _stopped_twice(history: list[Entry]) -> Iterable[str]:
    """A process is stopped once. The successor of an agent that was killed meanwhile adopts it and goes on."""
    under_way: set[tuple[Instance, int | None]] = set()
    for entry in history:
        key = (Instance(entry.service, entry.node), entry.pid)
        if entry.what in ("started", "adopted"):  # a number can also come round again
            under_way.discard(key)
        elif entry.what == "stopping":
            if key in under_way:
                yield f"{key[0]} (pid {entry.pid}) was stopped twice"
            under_way.add(key)


class _Order:
    """I1: nothing starts before its dependencies are ready. I2: nothing is stopped under a running dependent."""

    def __init__(
        self, edges: tuple[Edge, ...], instances: Mapping[str, int], in_place: Callable[[Entry], bool]
    ) -> None:
        self._edges = edges
        self._instances = instances
        self._in_place = in_place
        self._ready: dict[str, set[str]] = defaultdict(set)
        self._up: dict[str, set[str]] = defaultdict(set)

    def violations(self, history: Iterable[Entry]) -> Iterable[str]:
        for entry in history:
            if entry.what == "started":
                yield from self._starts(entry)
                self._up[entry.service].add(entry.node)
            elif entry.what == "adopted":
                self._up[entry.service].add(entry.node)
            elif entry.what == "ready":
                self._ready[entry.service].add(entry.node)
            elif entry.what == "stopping":
                yield from self._stops(entry)
                self._ready[entry.service].discard(entry.node)
            if entry.what in DOWN:
                self._ready[entry.service].discard(entry.node)
                self._up[entry.service].discard(entry.node)

    def _starts(self, entry: Entry) -> Iterable[str]:
        edges = [edge for edge in self._edges if edge.service == entry.service and edge.needed_to_start]
        for edge in edges:
            if len(self._ready[edge.dependency]) < self._needed(edge):
                yield f"I1: {entry.service}@{entry.node} was started before {edge.dependency} was ready"

    def _stops(self, entry: Entry) -> Iterable[str]:
        if self._in_place(entry):
            return
        edges = [edge for edge in self._edges if edge.dependency == entry.service and edge.needed_to_run]
        for edge in edges:
            left = len(self._ready[entry.service] - {entry.node})
            if self._up[edge.service] and left < self._needed(edge):
                yield f"I2: {entry.service}@{entry.node} was stopped while {edge.service} ran"

    def _needed(self, edge: Edge) -> int:
        return edge.min_instances or self._instances.get(edge.dependency, 1)


def _by_the_deposed(history: list[Entry]) -> Iterable[str]:
    """I3: on each node, no order of a lower epoch is followed after one of a higher."""
    highest: dict[str, int] = defaultdict(int)
    for entry in history:
        if entry.what == "new-log":  # Consul lost its data, and epochs count from the beginning
            highest[entry.node] = 0
        elif entry.what in ("started", "stopping"):
            if entry.epoch < highest[entry.node]:
                yield f"I3: {entry.service}@{entry.node} {entry.what} at epoch {entry.epoch} < {highest[entry.node]}"
            highest[entry.node] = max(highest[entry.node], entry.epoch)


def stops_in_place(operations: Iterable[Operation]) -> Callable[[Entry], bool]:
    """Tells the stops that leave dependents running on purpose: those of a restart that does not cascade.

    A 'stopping' entry bears the generation of what runs; the order to stop it has the next one that was given out.
    """
    orders: dict[Instance, list[tuple[int, bool]]] = defaultdict(list)
    for operation in operations:
        restarts = operation.kind in (Kind.RESTART, Kind.RECOVER)
        for step in operation.steps:
            if step.action is StepAction.STOP and step.generation is not None:
                spares = restarts and (not operation.options.cascade or bool(step.after))
                orders[step.instance].append((step.generation, spares))

    def in_place(entry: Entry) -> bool:
        given = orders[Instance(entry.service, entry.node)]
        return min((order for order in given if order[0] > entry.generation), default=(0, False))[1]

    return in_place


def unfinished(operations: Iterable[Operation], requested: Iterable[str] = ()) -> list[str]:
    """I4: every operation ends, and none is lost."""
    known = {operation.id: operation for operation in operations}
    lost = [f"I4: operation {operation_id} is lost" for operation_id in requested if operation_id not in known]
    return lost + [f"I4: {op.kind} {op.id} has not ended: {op.state}" for op in known.values() if not op.ended]


def lived_twice(name: str, lives: Sequence[Life]) -> list[str]:
    """What the service itself says of being started twice for one generation."""
    seen: set[int] = set()
    found = []
    for life in lives:
        if life.generation in seen:
            found.append(f"{name} lived twice for generation {life.generation} (pid {life.pid})")
        seen.add(life.generation)
    return found


def ended_unasked(
    instance: Instance,
    lives: Sequence[Life],
    running: Iterable[int],
    entries: Iterable[Entry],
    killed: Iterable[int] = (),
) -> list[str]:
    """I7: no process of a service ends but by an order to stop it, or by the test's own hand (``killed``)."""
    own = [entry for entry in entries if (entry.service, entry.node) == instance]
    explained = {entry.pid for entry in own if entry.what == "stopping"} | set(killed) | set(running)
    return [
        f"I7: {instance} (pid {life.pid}, generation {life.generation}) ended, and nobody had ordered it"
        for life in lives
        if life.pid not in explained
    ]
