"""Asking DNS: what is answered, what is refused, and what is no answer at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from consul_process import ConsulSpace

from citadel_consul.consul import dns
from citadel_consul.consul.agent import AgentSelf
from citadel_consul.consul.dns import DnsAnswer, DnsSettings, ServiceRecord, dns_settings, look_up
from citadel_consul.errors import ConsulRefused, ConsulUnavailable, InvalidInput

HOST = "127.0.0.1"


class _Babble(asyncio.DatagramProtocol):
    """Answers every question with the same bytes, or with nothing."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport

    def datagram_received(self, _data: bytes, addr: tuple[str, int]) -> None:
        if self._answer:
            self._transport.sendto(self._answer, addr)


@pytest.fixture(params=[b"", b"no DNS at all"], ids=["silence", "babble"])
async def useless_server(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Babble(request.param), local_addr=(HOST, 0))
    yield transport.get_extra_info("sockname")[1]
    transport.close()


def agent(**config: object) -> AgentSelf:
    return AgentSelf("n1", HOST, "dc1", "1.8.7", True, config)


@pytest.mark.consul
@pytest.mark.parametrize("by_tcp", [False, True])
async def test_addresses_ports_weights_and_the_time_to_live_are_told(consul: ConsulSpace, by_tcp: bool) -> None:
    body = {"Name": "web", "Address": "127.0.0.9", "Port": 81, "Weights": {"Passing": 3, "Warning": 1}}
    consul.request("PUT", "/v1/agent/service/register", body)
    deadline = time.monotonic() + 20.0
    while not (found := await look_up(HOST, consul.server.ports.dns, "web.service.consul", by_tcp=by_tcp)).services:
        assert time.monotonic() < deadline
    assert found == DnsAnswer(("127.0.0.9",), (ServiceRecord("127.0.0.9", 81, 3),), 0)


@pytest.mark.consul
async def test_a_name_that_does_not_exist_is_an_empty_answer_and_one_of_others_is_refused(consul: ConsulSpace) -> None:
    port = consul.server.ports.dns
    assert await look_up("localhost", port, "nobody.service.consul") == DnsAnswer()
    with pytest.raises(ConsulRefused, match="REFUSED"):
        await look_up(HOST, port, "web.example.com")


async def test_a_server_that_gives_no_answer_is_an_absence(
    useless_server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns, "ANSWER_SECONDS", 0.3)
    with pytest.raises(ConsulUnavailable, match=str(useless_server)):
        await look_up(HOST, useless_server, "web.service.consul")
    with pytest.raises(ConsulUnavailable, match=r"cannot be asked|does not answer"):
        await look_up(HOST, useless_server, "web.service.consul", by_tcp=True)  # nobody listens there by TCP


@pytest.mark.parametrize("name", ["a..consul", f"{'a' * 64}.consul", ".".join(["a" * 60] * 5)])
async def test_what_cannot_be_a_name_is_bad_input(name: str) -> None:
    with pytest.raises(InvalidInput, match="no name in DNS"):
        await look_up(HOST, 1, name)


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({}, DnsSettings(8600, "consul", None)),
        ({"DNSPort": 53, "DNSDomain": "corp.", "DNSOnlyPassing": True}, DnsSettings(53, "corp", True)),
        ({"DNSPort": -1}, DnsSettings(None, "consul", None)),
        ({"DNSPort": "53", "DNSDomain": 7, "DNSOnlyPassing": "yes"}, DnsSettings(8600, "consul", None)),
    ],
)
def test_what_an_agent_does_not_say_of_its_dns_is_as_by_default(
    config: dict[str, object], settings: DnsSettings
) -> None:
    assert dns_settings(agent(**config)) == settings


def test_names_have_tag_datacenter_and_domain_where_consul_has_them() -> None:
    settings = DnsSettings(domain="corp")
    assert settings.name_of("web") == "web.service.corp"
    assert settings.name_of("web", "blue", "dc2") == "blue.web.service.dc2.corp"
