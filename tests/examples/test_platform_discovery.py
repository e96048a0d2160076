"""Services are found in Consul, also while Consul is away, and calls reach one that answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

import ai_platform  # noqa: F401 - makes the example importable
import httpx
import orjson
import pytest
from consul_process import ConsulProcess, ConsulSpace
from services.discovery import instance, instances, resolver_for
from services.failures import Missing, Unavailable
from services.peers import Peers
from services.settings import Settings
from services.tracing import Hop, decode, encode, hops_below

from citadel_consul.discovery import ConsulTransport, Resolver

pytestmark = pytest.mark.consul


def register(consul: ConsulSpace | ConsulProcess, port: int, service: str = "store") -> None:
    body = {"Name": service, "ID": f"{service}-{port}", "Address": "127.0.0.1", "Port": port}
    consul.request("PUT", "/v1/agent/service/register", body)


class Stores:
    """The instances of the service ``store``, as far as they are not Consul's: they answer with their port."""

    def __init__(self) -> None:
        self.dead: set[int] = set()
        self.served: Counter[int] = Counter()
        self.keys: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        port = request.url.port or 80
        if port in self.dead:
            raise httpx.ConnectError("refused")
        self.served[port] += 1
        self.keys.append(request.headers["idempotency-key"])
        if request.url.path == "/missing":
            return httpx.Response(404, json={"detail": "not here"})
        if request.url.path == "/broken":
            return httpx.Response(500, text="traceback")
        hops = encode([Hop("store", "node-a", 1.5), Hop("disk", "node-a", 0.5, 1)])
        return httpx.Response(200, content=orjson.dumps({"port": port}), headers={"x-hops": hops})


@pytest.fixture
async def resolver(consul: ConsulSpace) -> AsyncIterator[Resolver]:
    async with resolver_for(Settings("test", port=1, consul_url=consul.url)) as opened:
        yield opened


@pytest.fixture
def stores() -> Stores:
    return Stores()


@pytest.fixture
async def peers(resolver: Resolver, stores: Stores) -> AsyncIterator[Peers]:
    transport = ConsulTransport(resolver, over=httpx.MockTransport(stores.answer))
    async with httpx.AsyncClient(transport=transport) as client:
        yield Peers(client)


async def test_a_store_is_found_by_its_name(consul: ConsulSpace, resolver: Resolver) -> None:
    register(consul, 1)
    assert [one.address for one in await instances(resolver, "store")] == ["127.0.0.1:1"]
    assert (await instance(resolver, "store")).address == "127.0.0.1:1"


async def test_a_service_that_nobody_knows_is_unavailable_and_found_once_it_is_there(
    consul: ConsulSpace, resolver: Resolver
) -> None:
    for look in (instance, instances):
        with pytest.raises(Unavailable, match="store"):
            await look(resolver, "store")
    changes = resolver.watch("store")
    assert await anext(changes) == ()
    register(consul, 1)
    assert len(await anext(changes)) == 1
    await changes.aclose()
    assert (await instance(resolver, "store")).port == 1


async def test_the_last_answer_stays_in_use_while_consul_is_away(new_consul: Callable[..., ConsulProcess]) -> None:
    server = new_consul()
    register(server, 1)
    async with resolver_for(Settings("test", port=1, consul_url=server.url)) as resolver:
        await instance(resolver, "store")
        server.kill()
        assert (await instance(resolver, "store")).address == "127.0.0.1:1"


async def test_a_consul_that_is_not_there_makes_everything_unavailable() -> None:
    async with resolver_for(Settings("test", port=1, consul_url="http://127.0.0.1:1")) as resolver:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await instance(resolver, "store")


async def test_a_call_goes_on_to_another_instance_when_one_cannot_be_reached(
    consul: ConsulSpace, peers: Peers, stores: Stores
) -> None:
    register(consul, 1)
    register(consul, 2)
    stores.dead = {1}
    assert [(await peers.call("store", "POST", "/"))["port"] for _ in range(8)] == [2] * 8
    assert len(set(stores.keys)) == 8  # each call has a key of its own


async def test_a_service_without_a_living_instance_is_unavailable(
    consul: ConsulSpace, peers: Peers, stores: Stores
) -> None:
    register(consul, 1)
    stores.dead = {1}
    with pytest.raises(Unavailable, match="store cannot be reached"):
        await peers.call("store", "GET", "/")


async def test_a_refusal_and_a_breakdown_of_a_peer_are_different_failures(consul: ConsulSpace, peers: Peers) -> None:
    register(consul, 1)
    with pytest.raises(Missing, match="not here"):
        await peers.call("store", "GET", "/missing")
    with pytest.raises(Unavailable, match="store answered 500"):
        await peers.call("store", "GET", "/broken")


async def test_the_hops_of_a_called_service_are_collected_one_level_deeper(consul: ConsulSpace, peers: Peers) -> None:
    register(consul, 1)
    below: list[Hop] = []
    token = hops_below.set(below)
    await peers.call("store", "GET", "/")
    hops_below.reset(token)
    assert below == [Hop("store", "node-a", 1.5, 1), Hop("disk", "node-a", 0.5, 2)]


@pytest.mark.parametrize("value", ["", "nonsense", "[1]", '[["a"]]', '{"a": 1}'])
def test_a_trace_that_does_not_parse_fails_nobody(value: str) -> None:
    assert decode(value) == []
