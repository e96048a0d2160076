"""What is taken out of a stack is forgotten: in Consul, by its node agent, on disk. What comes back starts anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from real_world import World

from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.model import Edge, Stack
from citadel_consul.core.operation import Kind, OperationState
from citadel_consul.store.applying import read_difference, write_difference
from citadel_consul.store.keys import Keys

pytestmark = [pytest.mark.consul, pytest.mark.slow]


def prune(world: World, *names: str) -> None:
    """Have only ``names`` in the stack."""
    stack = Stack(world.stack, {name: world.tiny(name) for name in names}, ())

    async def write(client: ConsulClient) -> None:
        await write_difference(client, await read_difference(client, stack, prune=True))

    world.ask(write)


def traces(world: World, service: str) -> list[str]:
    """Every key that names a service or holds something of it, but for its history, and its record on the node."""
    keys = Keys(world.stack)

    async def ask(client: ConsulClient) -> list[str]:
        found = []
        for entry in (await client.kv_list(keys.root)).value:
            if entry.key.startswith((keys.desired, keys.observed)):
                found += [entry.key for name in json.loads(entry.value)["instances"] if name == service]
            elif entry.key.startswith((keys.specs, keys.edges, keys.stats, keys.incidents)):
                found += [entry.key] if service in entry.key.split("/") else []
        return found

    records = Path(world.folder / "state" / world.stack).glob(f"*/{service}.json")
    return [*world.ask(ask), *(str(path) for path in records)]


def generation_of(world: World, service: str) -> int:
    return next(seen.generation for instance, seen in world.snapshot().observed.items() if instance.service == service)


def test_a_service_that_was_pruned_leaves_nothing_and_can_come_back(world: World) -> None:
    first = world.orchestrator("o1")
    world.agent()
    world.apply([world.tiny("a"), world.tiny("b")], [Edge("b", "a")])
    for _ in range(2):
        assert world.operate(Kind.STARTUP).state is OperationState.SUCCEEDED, world.logs()
        assert world.operate(Kind.SHUTDOWN, "b").state is OperationState.SUCCEEDED, world.logs()
    assert generation_of(world, "b") > 1
    before = world.running_pids()
    prune(world, "a")
    assert len(traces(world, "b")) >= 3
    world.orchestrator("o2")  # a new leader keeps house at once, and the old one every half a minute
    first.terminate()
    world.until(lambda: traces(world, "b") == [], what="everything to be forgotten")
    assert world.running_pids() == before
    world.apply([world.tiny("b")], [Edge("b", "a")])
    assert world.operate(Kind.STARTUP, "b").state is OperationState.SUCCEEDED, world.logs()
    assert generation_of(world, "b") == 1
    assert len(world.running_pids()["b"]) == 1
