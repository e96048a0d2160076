"""Asking for an operation, cancelling it, and waiting for its end.

A request is a document that the requester writes with its own token, so Consul's ACLs decide who may ask for what.
Whoever leads takes it from there; nothing is sent to anybody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable

from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.operation import Kind, Operation, OperationState, Options
from citadel_consul.errors import Conflict, NoLeader, NotFound, Refused
from citadel_consul.store import documents
from citadel_consul.store.identifiers import new_id
from citadel_consul.store.keys import Keys
from citadel_consul.store.reading import read_operation

LOOK_AGAIN_SECONDS = 1.0
"""How long one wait for a change of an operation may take before it is looked at anyway."""


async def submit(
    client: ConsulClient, keys: Keys, kind: Kind, targets: Iterable[str], options: Options, *, requested_by: str
) -> Operation:
    """Write a request for an operation; returns it as pending."""
    now = time.time()
    operation = Operation(
        id=new_id(now),
        kind=kind,
        targets=tuple(targets),
        options=options,
        requested_by=requested_by,
        requested_at=now,
    )
    if not await client.kv_put(keys.operation(operation.id), documents.encode_operation(operation), cas=0):
        raise Conflict(f"an operation {operation.id} exists already")
    return operation


async def cancel(client: ConsulClient, keys: Keys, operation_id: str, *, by: str) -> None:
    """Ask for the end of an operation: what has not begun is skipped, what has begun is seen through."""
    operation = await read_operation(client, keys, operation_id)
    if operation is None:
        raise NotFound(f"no operation {operation_id!r}")
    if operation.ended:
        raise Refused(f"operation {operation_id} has already {operation.state}")
    await client.kv_put(
        keys.cancel(operation_id), documents.CANCELLATION.encode(documents.Cancellation(by, time.time()))
    )


async def follow(client: ConsulClient, keys: Keys, operation_id: str) -> AsyncIterator[Operation]:
    """The operation each time that it, or one of its steps, changed; ends after its end."""
    index: int | None = None
    while True:
        operation = await read_operation(client, keys, operation_id)
        if operation is None:
            raise NotFound(f"no operation {operation_id!r}")
        yield operation
        if operation.ended:
            return
        index = await _next_change(client, keys, operation, index)


async def wait_for_end(
    client: ConsulClient, keys: Keys, operation_id: str, *, timeout_seconds: float, leader_seconds: float | None = None
) -> Operation:
    """The operation when it has ended, or as it stands after ``timeout_seconds``.

    Raises :class:`NoLeader` if it is still pending, waiting for no other, after ``leader_seconds``.
    """
    last: Operation | None = None
    began = time.monotonic()
    try:
        async with asyncio.timeout(timeout_seconds):
            async for last in follow(client, keys, operation_id):
                ignored = last.state is OperationState.PENDING and last.waits_for is None
                if ignored and leader_seconds is not None and time.monotonic() - began > leader_seconds:
                    raise NoLeader(f"no orchestrator took operation {operation_id} within {leader_seconds:g} s")
    except TimeoutError:
        if last is None:
            last = await read_operation(client, keys, operation_id)
    if last is None:
        raise NotFound(f"no operation {operation_id!r}")
    return last


async def _next_change(client: ConsulClient, keys: Keys, operation: Operation, index: int | None) -> int:
    """Wait until the head or the steps change: a pending operation has no steps, a running one ends with its last."""
    if operation.state is OperationState.PENDING:
        head = await client.kv_read(keys.operation(operation.id), index, wait_seconds=LOOK_AGAIN_SECONDS)
        return head.index
    listing = await client.kv_list(keys.step_chunks(operation.id), index, wait_seconds=LOOK_AGAIN_SECONDS)
    return listing.index
