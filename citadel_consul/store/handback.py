"""Handing services back, in the KV store: the request, and the forgetting once nobody has them in hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.transaction import MAX_OPERATIONS, TxnOp, delete_cas, set_key
from citadel_consul.core.snapshot import Hold
from citadel_consul.store import documents
from citadel_consul.store.keys import Keys
from citadel_consul.store.state import StackState


async def request(client: ConsulClient, keys: Keys, holds: Sequence[Hold]) -> None:
    """Put the holds that ask for it in force, in the place of any that may be there."""
    await _write(client, [set_key(keys.hold(hold.scope, hold.name), documents.HOLD.encode(hold)) for hold in holds])


async def forget(client: ConsulClient, state: StackState, services: Sequence[str]) -> None:
    """Remove edges, specs and holds of ``services``, in an order in which each prefix of it is a sound stack.

    Raises Conflict if somebody changed one of them since ``state`` was read; saying it again goes on from there.
    """
    keys = state.keys
    edges = [
        delete_cas(key, state.edges.index_of(key))
        for key, edge in state.edges.values.items()
        if edge.service in services or edge.dependency in services
    ]
    specs = [delete_cas(key, state.specs.index_of(key)) for key in map(keys.spec, services)]
    held = (keys.hold("service", name) for name in services)
    holds = [delete_cas(key, state.holds.index_of(key)) for key in held if key in state.holds.values]
    await _write(client, [*edges, *specs, *holds])


async def _write(client: ConsulClient, operations: Iterable[TxnOp]) -> None:
    pending = list(operations)
    for first in range(0, len(pending), MAX_OPERATIONS):
        await client.transact(pending[first : first + MAX_OPERATIONS])
