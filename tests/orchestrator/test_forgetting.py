"""What a leader forgets, on a real Consul: what was taken out of its stack, once nobody has it in hand any more."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from consul_process import ConsulSpace

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.actions import SetDesired
from citadel_consul.core.incident import STACK, Incident, IncidentState
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Instance, ProcessBackend, ServiceSpec
from citadel_consul.core.operation import Kind, Options
from citadel_consul.core.snapshot import Defaults
from citadel_consul.core.stats import ServiceStats
from citadel_consul.orchestrator.fence import Fence
from citadel_consul.orchestrator.housekeeping import Housekeeping
from citadel_consul.orchestrator.writer import FencedWriter
from citadel_consul.store import documents
from citadel_consul.store.documents import NodeDesired, NodeObserved
from citadel_consul.store.keys import Keys
from citadel_consul.store.reading import read_state
from citadel_consul.store.requests import submit
from citadel_consul.store.state import StackState

pytestmark = pytest.mark.consul

EPOCH = 7
DOWN = Desired(run=False, generation=4)
STOPPED = Observed(4, Phase.STOPPED, since=1.0)


def spec(name: str, *nodes: str) -> ServiceSpec:
    return ServiceSpec(name=name, type="test", nodes=nodes or ("n1",), backend=ProcessBackend(command=("x",)))


@dataclass
class House:
    """A stack of one node that somebody leads: ``web`` belongs to it, and whatever a test says was there before."""

    client: ConsulClient
    keys: Keys
    session: str

    async def hold(self, desired: dict[str, Desired], observed: dict[str, Observed], *specs: ServiceSpec) -> None:
        put, keys = self.client.kv_put, self.keys
        for each in (spec("web"), *specs):
            await put(keys.spec(each.name), documents.SPEC.encode(each))
        await put(keys.desired_of("n1"), documents.DESIRED.encode(NodeDesired(EPOCH - 1, desired)))
        await put(keys.observed_of("n1"), documents.OBSERVED.encode(NodeObserved(EPOCH - 1, observed)))

    async def writer(self) -> tuple[StackState, FencedWriter]:
        state = await read_state(self.client, self.keys.stack, Defaults())
        fence = Fence(self.client, self.keys.leader, self.session)
        return state, FencedWriter(fence, state, epoch=EPOCH, identity="test")

    async def keep(self) -> StackState:
        """Let a leader forget what it may; returns what it knows then."""
        state, writer = await self.writer()
        await Housekeeping(self.client, state, writer).forget()
        return state

    async def orders(self) -> NodeDesired:
        entry = await self.client.kv_get(self.keys.desired_of("n1"))
        assert entry is not None
        return documents.DESIRED.decode(entry.value)

    async def names(self, prefix: str) -> list[str]:
        return [key.removeprefix(prefix) for key in await self.client.kv_keys(prefix)]


@pytest.fixture
async def house(consul: ConsulSpace) -> AsyncIterator[House]:
    async with ConsulClient(parse_address(consul.address)) as client:
        keys = Keys(consul.stack)
        session = await client.session_create("leader", 10.0)
        assert await client.kv_put(keys.leader, b"{}", acquire=session)
        yield House(client, keys, session)


async def test_what_is_no_longer_in_the_stack_is_forgotten_and_the_orders_bear_the_epoch(house: House) -> None:
    await house.hold({"web": DOWN, "old": DOWN}, {"web": STOPPED, "old": STOPPED})
    state = await house.keep()
    assert await house.orders() == NodeDesired(EPOCH, {"web": DOWN})
    assert state.snapshot().desired == {Instance("web", "n1"): DOWN}
    before = await house.client.kv_get(house.keys.desired_of("n1"))
    await house.keep()
    assert await house.client.kv_get(house.keys.desired_of("n1")) == before  # nothing to forget is nothing to write


async def test_an_instance_whose_service_moved_to_another_node_is_forgotten(house: House) -> None:
    await house.hold({"web": DOWN, "api": DOWN}, {"api": STOPPED}, spec("api", "n2"))
    await house.keep()
    assert list((await house.orders()).instances) == ["web"]


@pytest.mark.parametrize(
    ("desired", "observed"),
    [
        (DOWN, replace(STOPPED, phase=Phase.READY)),
        (DOWN, replace(STOPPED, phase=Phase.STOPPING)),
        (DOWN, replace(STOPPED, generation=3)),
        (replace(DOWN, run=True), STOPPED),
    ],
    ids=["it runs", "it is being stopped", "its agent has not seen the order", "it is to run"],
)
async def test_what_somebody_has_in_hand_is_not_forgotten(house: House, desired: Desired, observed: Observed) -> None:
    await house.hold({"old": desired}, {"old": observed})
    await house.keep()
    assert (await house.orders()).instances == {"old": desired}


async def test_what_an_operation_works_on_is_not_forgotten(house: House) -> None:
    await house.hold({"old": DOWN}, {"old": STOPPED})
    await submit(house.client, house.keys, Kind.STARTUP, ("old",), Options(), requested_by="test")
    await house.keep()
    assert (await house.orders()).instances == {"old": DOWN}


async def test_a_spec_that_cannot_be_read_is_one(house: House) -> None:
    await house.hold({"old": DOWN}, {"old": STOPPED})
    await house.client.kv_put(house.keys.spec("old"), b"{ no JSON")
    await house.keep()
    assert (await house.orders()).instances == {"old": DOWN}


async def test_what_was_counted_of_it_and_its_incident_go_with_it(house: House) -> None:
    await house.hold({"web": DOWN, "busy": replace(DOWN, run=True)}, {})
    for name in ("web", "old", "busy", STACK):
        await house.client.kv_put(house.keys.stats_of(name), documents.STATS.encode(ServiceStats(name)))
        incident = Incident(f"1-{name}", name, IncidentState.CLOSED, opened_at=1.0, cause="x")
        await house.client.kv_put(house.keys.incident(name), documents.INCIDENT.encode(incident))
    state = await house.keep()
    for prefix in (house.keys.stats, house.keys.incidents):
        assert await house.names(prefix) == sorted([STACK, "busy", "web"])
    snapshot = state.snapshot()
    assert snapshot.stats.keys() == snapshot.incidents.keys() == {STACK, "busy", "web"}


async def test_orders_bear_the_epoch_of_who_gave_them(house: House) -> None:
    await house.hold({"web": DOWN}, {"web": STOPPED})
    _, writer = await house.writer()
    await writer.commit([SetDesired(Instance("web", "n1"), replace(DOWN, run=True, generation=5))], now=1.0)
    entry = await house.client.kv_get(house.keys.desired_of("n1"))
    assert entry is not None
    assert json.loads(entry.value)["epoch"] == EPOCH
