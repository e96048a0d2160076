"""Reading the whole state of a stack once, for a question from the CLI or the API."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.core.operation import Operation, OperationState, Step
from citadel_consul.core.snapshot import Defaults
from citadel_consul.errors import ConsulRefused
from citadel_consul.store import documents
from citadel_consul.store.documents import UndecodableError
from citadel_consul.store.keys import ROOT, Keys
from citadel_consul.store.state import StackState


async def read_state(client: ConsulClient, stack: str, defaults: Defaults) -> StackState:
    """All of a stack, read at about one moment. Raises ConsulUnavailable or ConsulRefused, and no group of them."""
    state = StackState(stack, defaults)
    try:
        await _read_prefixes(client, state)
    except ExceptionGroup as failures:
        # The readings fail together, and what callers wait for is the type of one: a refusal, if there was any.
        raise _first(failures.subgroup(ConsulRefused) or failures) from None
    unfinished = [op.id for op in state.all_operations() if not op.ended]
    for operation_id in unfinished:
        state.steps[operation_id] = await read_steps(client, state.keys, operation_id)
    return state


async def _read_prefixes(client: ConsulClient, state: StackState) -> None:
    keys = state.keys
    prefixes = (
        keys.specs, keys.edges, keys.holds, keys.agents, keys.desired, keys.observed, keys.operations, keys.incidents,
        keys.stats, keys.leader,
    )  # fmt: skip
    async with asyncio.TaskGroup() as group:
        for prefix in prefixes:
            group.create_task(_read_prefix(client, state, prefix))
        for status in ("warning", "critical"):
            group.create_task(_read_checks(client, state, status))


def _first(failures: ExceptionGroup[Exception]) -> Exception:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


async def read_operation(client: ConsulClient, keys: Keys, operation_id: str) -> Operation | None:
    """One operation with its steps; None if there is none of that id."""
    entry = await client.kv_get(keys.operation(operation_id))
    if entry is None:
        return None
    operation = documents.OPERATION.decode(entry.value)
    if operation.state is OperationState.PENDING:
        return operation
    return _with_steps(operation, await read_steps(client, keys, operation_id))


async def read_steps(client: ConsulClient, keys: Keys, operation_id: str) -> tuple[Step, ...]:
    """The steps of an operation, in order."""
    listing = await client.kv_list(keys.step_chunks(operation_id))
    return decode_steps(listing.value)


def decode_steps(entries: tuple[KVEntry, ...]) -> tuple[Step, ...]:
    """The steps that chunks hold; a chunk that cannot be read ends them (it is never half written)."""
    steps: list[Step] = []
    for entry in sorted(entries, key=lambda e: e.key):
        try:
            steps += documents.STEPS.decode(entry.value).steps
        except UndecodableError:
            break
    return tuple(steps)


def checks_of_stack(stack: str) -> str:
    """Consul's filter for the checks of a stack's instances and of nodes: others may have thousands that fail.

    A name is a label, so it means itself in a pattern.
    """
    return f'ServiceID == "" or ServiceID matches "^{stack}[.]"'


async def list_stacks(client: ConsulClient) -> tuple[str, ...]:
    """The names of the stacks in this Consul."""
    keys = await client.kv_keys(ROOT)
    return tuple(sorted({key.removeprefix(ROOT).partition("/")[0] for key in keys}))


async def _read_prefix(client: ConsulClient, state: StackState, prefix: str) -> None:
    listing = await client.kv_list(prefix)
    state.merge(prefix, listing.index, listing.value)


async def _read_checks(client: ConsulClient, state: StackState, status: str) -> None:
    listing = await client.health_state(status, filter=checks_of_stack(state.keys.stack))
    state.merge_checks(status, listing.value)


def _with_steps(operation: Operation, steps: tuple[Step, ...]) -> Operation:
    return replace(operation, steps=steps[: operation.step_count])
