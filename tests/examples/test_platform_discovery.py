"""Services are found in Consul, also while Consul is away, and calls are spread over their instances."""

from __future__ import annotations

from collections import Counter
from typing import Any

import ai_platform  # noqa: F401 - makes the example importable
import httpx
import orjson
import pytest
from services.discovery import Address, Discovery, usable
from services.failures import Missing, Unavailable
from services.peers import Peers
from services.tracing import Hop, decode, encode, hops_below


def entry(port: int, *statuses: str, address: str = "10.0.0.1") -> dict[str, Any]:
    return {
        "Node": {"Address": "10.9.9.9"},
        "Service": {"Address": address, "Port": port},
        "Checks": [{"Status": status} for status in statuses],
    }


class Catalog:
    """What Consul answers, and how often it was asked; the services behind it answer with their port."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        self.entries = list(entries)
        self.away = False
        self.asked = 0
        self.dead: set[int] = set()
        self.served: Counter[int] = Counter()
        self.now = 0.0
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self._handle))
        self.discovery = Discovery(self.http, "http://consul:8500", "token", clock=lambda: self.now)
        self.peers = Peers(self.http, self.discovery)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "consul":
            self.asked += 1
            if self.away:
                raise httpx.ConnectError("refused")
            assert request.headers["x-consul-token"] == "token"
            return httpx.Response(200, json=self.entries)
        port = request.url.port or 80
        if port in self.dead:
            raise httpx.ConnectError("refused")
        self.served[port] += 1
        if request.url.path == "/missing":
            return httpx.Response(404, json={"detail": "not here"})
        if request.url.path == "/broken":
            return httpx.Response(500, text="traceback")
        hops = encode([Hop("store", "node-a", 1.5), Hop("disk", "node-a", 0.5, 1)])
        return httpx.Response(200, content=orjson.dumps({"port": port}), headers={"x-hops": hops})


def test_passing_instances_go_before_those_that_warn() -> None:
    assert usable([entry(1, "warning"), entry(2, "passing", "passing")]) == (Address("10.0.0.1", 2),)


def test_instances_that_only_warn_are_better_than_none() -> None:
    assert usable([entry(1, "passing", "warning"), entry(2, "passing", "critical")]) == (Address("10.0.0.1", 1),)


def test_an_instance_without_an_address_is_at_that_of_its_node() -> None:
    assert usable([entry(1, address="")]) == (Address("10.9.9.9", 1),)


async def test_an_answer_is_kept_for_a_second() -> None:
    catalog = Catalog(entry(1, "passing"))
    for catalog.now in (0.0, 0.9):
        await catalog.discovery.addresses("store")
    assert catalog.asked == 1
    catalog.now = 1.0
    await catalog.discovery.addresses("store")
    assert catalog.asked == 2


async def test_the_last_answer_stays_in_use_while_consul_is_away() -> None:
    catalog = Catalog(entry(1, "passing"))
    await catalog.discovery.addresses("store")
    catalog.away, catalog.now = True, 3600.0
    assert await catalog.discovery.addresses("store") == (Address("10.0.0.1", 1),)


async def test_a_service_that_nobody_knows_is_asked_for_again_at_once() -> None:
    catalog = Catalog()
    with pytest.raises(Unavailable, match="store"):
        await catalog.discovery.addresses("store")
    catalog.entries = [entry(1, "passing")]
    assert await catalog.discovery.addresses("store") == (Address("10.0.0.1", 1),)


async def test_calls_take_turns_among_instances() -> None:
    catalog = Catalog(entry(1, "passing"), entry(2, "passing"))
    for _ in range(6):
        await catalog.peers.call("store", "GET", "/")
    assert catalog.served == {1: 3, 2: 3}


async def test_a_call_goes_on_to_another_instance_when_one_cannot_be_reached() -> None:
    catalog = Catalog(entry(1, "passing"), entry(2, "passing"))
    catalog.dead = {1}
    assert [(await catalog.peers.call("store", "GET", "/"))["port"] for _ in range(4)] == [2, 2, 2, 2]


async def test_a_service_without_a_living_instance_is_unavailable() -> None:
    catalog = Catalog(entry(1, "passing"))
    catalog.dead = {1}
    with pytest.raises(Unavailable, match="store cannot be reached"):
        await catalog.peers.call("store", "GET", "/")


async def test_a_refusal_and_a_breakdown_of_a_peer_are_different_failures() -> None:
    catalog = Catalog(entry(1, "passing"))
    with pytest.raises(Missing, match="not here"):
        await catalog.peers.call("store", "GET", "/missing")
    with pytest.raises(Unavailable, match="store answered 500"):
        await catalog.peers.call("store", "GET", "/broken")


async def test_the_hops_of_a_called_service_are_collected_one_level_deeper() -> None:
    catalog = Catalog(entry(1, "passing"))
    below: list[Hop] = []
    token = hops_below.set(below)
    await catalog.peers.call("store", "GET", "/")
    hops_below.reset(token)
    assert below == [Hop("store", "node-a", 1.5, 1), Hop("disk", "node-a", 0.5, 2)]


@pytest.mark.parametrize("value", ["", "nonsense", "[1]", '[["a"]]', '{"a": 1}'])
def test_a_trace_that_does_not_parse_fails_nobody(value: str) -> None:
    assert decode(value) == []
