"""Reads what the node agents wrote down, and holds it against the invariants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from citadel_consul.agent.chronicle import Entry
from citadel_consul.core.model import Edge, Instance

UP = frozenset({"started", "adopted"})
DOWN = frozenset({"exited", "stopped", "completed"})


def violations(entries: Iterable[Entry], edges: Iterable[Edge]) -> list[str]:
    """Everything in the history that an invariant forbids; hard edges with condition 'healthy' are judged."""
    history = sorted(entries, key=lambda entry: entry.at)
    return [*_started_twice(history), *_out_of_order(history, tuple(edges)), *_by_the_deposed(history)]


def _started_twice(history: list[Entry]) -> Iterable[str]:
    seen: set[tuple[Instance, int]] = set()
    for entry in history:
        key = (Instance(entry.service, entry.node), entry.generation)
        if entry.what == "started":
            if key in seen:
                yield f"{key[0]} was started twice for generation {key[1]}"
            seen.add(key)


def _out_of_order(history: list[Entry], edges: tuple[Edge, ...]) -> Iterable[str]:
    """I1: nothing starts before its dependency is ready. I2: nothing is stopped under a running dependent."""
    ready: dict[str, set[str]] = defaultdict(set)
    up: dict[str, set[str]] = defaultdict(set)
    for entry in history:
        if entry.what == "started":
            up[entry.service].add(entry.node)
            for edge in edges:
                if edge.service == entry.service and not ready[edge.dependency]:
                    yield f"I1: {entry.service} was started before {edge.dependency} was ready"
        elif entry.what == "ready":
            ready[entry.service].add(entry.node)
        elif entry.what == "stopping":
            for edge in edges:
                if edge.dependency == entry.service and up[edge.service]:
                    yield f"I2: {entry.service} was stopped while {edge.service} ran"
        if entry.what in DOWN or entry.what == "stopping":
            ready[entry.service].discard(entry.node)
        if entry.what in DOWN:
            up[entry.service].discard(entry.node)


def _by_the_deposed(history: list[Entry]) -> Iterable[str]:
    """I3: on each node, no order of a lower epoch is followed after one of a higher."""
    highest: dict[str, int] = defaultdict(int)
    for entry in history:
        if entry.what in ("started", "stopping"):
            if entry.epoch < highest[entry.node]:
                yield f"I3: {entry.service}@{entry.node} {entry.what} at epoch {entry.epoch} < {highest[entry.node]}"
            highest[entry.node] = max(highest[entry.node], entry.epoch)
