"""Writing a stack file into the KV store: look, compare, and write only if nobody wrote in between.

All of it goes in one transaction if it fits (64 operations). A larger stack takes several, in an order in which each
prefix is a sound stack: removed edges first, then services, then edges, so an edge never names a service that is not
there. Each operation compares the index it was decided on; a loser is told which key moved, and nothing of its
transaction is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.transaction import MAX_OPERATIONS, TxnOp, cas, delete_cas
from citadel_consul.core.model import Edge, ServiceSpec, Stack
from citadel_consul.core.snapshot import Defaults
from citadel_consul.errors import Refused
from citadel_consul.store import documents
from citadel_consul.store.keys import Keys
from citadel_consul.store.reading import read_state
from citadel_consul.store.state import StackState


@dataclass(frozen=True, slots=True)
class Change:
    """One key to be written: ``kind`` is add, change or remove; ``detail`` says which fields differ."""

    kind: str
    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """What it takes to make the KV store hold a stack file. ``kept`` is there without being in the file."""

    stack: str
    changes: tuple[Change, ...]
    kept: tuple[str, ...]
    operations: tuple[TxnOp, ...]


async def read_difference(client: ConsulClient, stack: Stack, *, prune: bool) -> Difference:
    """Compare ``stack`` with what is in the KV store.

    With ``prune`` what the file does not have is to be removed. Raises Refused if that would be a running service.
    """
    state = await read_state(client, stack.name, Defaults())
    removals = _Removals(state, stack)
    if prune:
        removals.refuse_running()
    changes: list[Change] = []
    operations: list[TxnOp] = []
    for change, operation in (*(removals.edges() if prune else ()), *_specs(state, stack), *_edges(state, stack)):
        changes.append(change)
        operations.append(operation)
    for change, operation in removals.specs() if prune else ():
        changes.append(change)
        operations.append(operation)
    kept = () if prune else tuple(change.name for change, _ in (*removals.specs(), *removals.edges()))
    return Difference(stack.name, tuple(changes), kept, tuple(operations))


async def write_difference(client: ConsulClient, difference: Difference) -> None:
    """Write it. Raises Conflict if somebody changed one of the keys since the comparison."""
    for first in range(0, len(difference.operations), MAX_OPERATIONS):
        await client.transact(difference.operations[first : first + MAX_OPERATIONS])


def _specs(state: StackState, stack: Stack) -> Iterator[tuple[Change, TxnOp]]:
    for spec in stack.services.values():
        key = state.keys.spec(spec.name)
        before = None if _faulty(state, key) else state.specs.values.get(key)
        if before == spec:
            continue
        operation = cas(key, documents.SPEC.encode(spec), state.specs.index_of(key))
        yield _change(f"service {spec.name}", state.specs.index_of(key), before, spec), operation


def _edges(state: StackState, stack: Stack) -> Iterator[tuple[Change, TxnOp]]:
    for edge in stack.edges:
        key = state.keys.edge(edge.service, edge.dependency)
        before = None if _faulty(state, key) else state.edges.values.get(key)
        if before == edge:
            continue
        operation = cas(key, documents.EDGE.encode(edge), state.edges.index_of(key))
        yield _change(_edge_name(edge), state.edges.index_of(key), before, edge), operation


class _Removals:
    """What is in the KV store and not in the file."""

    def __init__(self, state: StackState, stack: Stack) -> None:
        self._state = state
        self._stack = stack
        wanted = {state.keys.spec(name) for name in stack.services}
        self._doomed = [key for key in _known(state.specs.values, state, state.keys.specs) if key not in wanted]

    def refuse_running(self) -> None:
        """Raise Refused if a service that would be removed still runs: nobody could stop it in order afterwards."""
        snapshot = self._state.snapshot()
        names = [key.removeprefix(self._state.keys.specs) for key in self._doomed]
        running = [name for name in names if any(not snapshot.is_down(i) for i in snapshot.instances(name))]
        if running:
            raise Refused(f"{', '.join(running)} would be removed but runs: citadel down {' '.join(running)} first")

    def specs(self) -> Iterator[tuple[Change, TxnOp]]:
        for key in self._doomed:
            name = key.removeprefix(self._state.keys.specs)
            yield Change("remove", f"service {name}"), delete_cas(key, self._state.specs.index_of(key))

    def edges(self) -> Iterator[tuple[Change, TxnOp]]:
        keys = self._state.keys
        wanted = {keys.edge(edge.service, edge.dependency) for edge in self._stack.edges}
        for key in _known(self._state.edges.values, self._state, keys.edges):
            if key not in wanted:
                name = key.removeprefix(keys.edges).replace("/", " → ", 1)
                yield Change("remove", f"edge {name}"), delete_cas(key, self._state.edges.index_of(key))


def _known(values: Iterable[str], state: StackState, prefix: str) -> list[str]:
    """The keys below ``prefix``, those included that cannot be decoded."""
    faulty = [fault.key for fault in state.faults() if fault.key.startswith(prefix)]
    return sorted({*values, *faulty})


def _faulty(state: StackState, key: str) -> bool:
    return any(fault.key == key for fault in state.faults())


def _edge_name(edge: Edge) -> str:
    return f"edge {edge.service} → {edge.dependency}"


def _change(name: str, index: int, before: ServiceSpec | Edge | None, after: ServiceSpec | Edge) -> Change:
    if index == 0:
        return Change("add", name)
    if before is None:
        return Change("change", name, "what was there could not be read")
    differing = [f.name for f in dataclasses.fields(after) if getattr(before, f.name) != getattr(after, f.name)]
    return Change("change", name, ", ".join(differing))


def edge_operation(keys: Keys, edge: Edge, index: int) -> TxnOp:
    """The operation that writes one edge if its key is still as of ``index``."""
    return cas(keys.edge(edge.service, edge.dependency), documents.EDGE.encode(edge), index)
