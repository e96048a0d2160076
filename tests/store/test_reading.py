"""Reading a whole stack fails as a single call does: with the one error that callers wait for."""

from __future__ import annotations

import gc
import weakref

import pytest
from consul_process import ConsulSpace

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.ports import Ports
from citadel_consul.core.operation import Kind, Operation, OperationState, Step, StepAction, StepState
from citadel_consul.core.snapshot import Defaults
from citadel_consul.errors import ConsulUnavailable
from citadel_consul.store import documents
from citadel_consul.store.documents import StepChunk
from citadel_consul.store.keys import Keys
from citadel_consul.store.reading import read_state


async def test_an_absent_consul_is_unavailable_and_not_a_group_of_errors() -> None:
    port = Ports().with_free(["http"]).http
    async with ConsulClient(parse_address(f"127.0.0.1:{port}")) as client:
        with pytest.raises(ConsulUnavailable):
            await read_state(client, "demo", Defaults())


@pytest.mark.consul
async def test_an_empty_stack_is_read_as_one(consul: ConsulSpace) -> None:
    async with ConsulClient(parse_address(consul.address)) as client:
        state = await read_state(client, consul.stack, Defaults())
    assert state.snapshot().specs == {}


@pytest.mark.consul
async def test_a_reading_that_is_over_leaves_nothing_to_the_garbage_collector(consul: ConsulSpace) -> None:
    async with ConsulClient(parse_address(consul.address)) as client:
        await client.kv_put(Keys(consul.stack).edge("web", "db"), b"{}")
        gc.collect()
        gc.disable()  # each scrape and each look at a screen is one: what is left of them makes memory creep up
        try:
            state = await read_state(client, consul.stack, Defaults())
            left = weakref.ref(state), weakref.ref(state.edges)
            assert state.edges.values
            del state
            assert [ref() for ref in left] == [None, None]
        finally:
            gc.enable()


@pytest.mark.consul
async def test_an_unfinished_operation_is_read_with_its_steps_and_one_that_ended_without(consul: ConsulSpace) -> None:
    keys = Keys(consul.stack)
    steps = tuple(
        Step("web", f"n{number}", StepAction.START, StepState.RUNNING, generation=number) for number in (1, 2)
    )
    async with ConsulClient(parse_address(consul.address)) as client:
        for name, state in (("1-a", OperationState.SUCCEEDED), ("2-b", OperationState.RUNNING)):
            operation = Operation(name, Kind.STARTUP, ("web",), state=state, step_count=2)
            await client.kv_put(keys.operation(name), documents.encode_operation(operation))
            await client.kv_put(keys.step_chunk(name, 0), documents.STEPS.encode(StepChunk(steps)))
        read = (await read_state(client, consul.stack, Defaults())).snapshot().operations
    assert [(operation.id, operation.steps) for operation in read] == [("1-a", ()), ("2-b", steps)]
