"""Asking the catalog and DNS for the same service, until they agree or it is plain that they do not."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Final

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.dns import DnsAnswer, DnsSettings, dns_settings, look_up
from citadel_consul.core.resolution import (
    PASSING,
    CatalogInstance,
    DnsSide,
    DnsTarget,
    Resolution,
    differences,
)
from citadel_consul.errors import ConsulRefused, ConsulUnavailable

AGREE_SECONDS: Final = 2.0
"""How long the two may differ before it is said: DNS may answer from another server, or from a cache of a second."""

_PAUSE_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Server:
    """The DNS server to ask, and what is known of the Consul behind it."""

    host: str
    port: int | None
    settings: DnsSettings

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def server_of(client: ConsulClient, given: tuple[str, int] | None) -> Server:
    """The server that was ``given``, else the DNS of the Consul agent that ``client`` talks to."""
    try:
        settings = dns_settings(await client.agent_self())
    except ConsulRefused:  # the token may not look at the agent: what Consul has by default then
        settings = DnsSettings()
    host = "127.0.0.1" if client.address.scheme == "unix" else client.address.host
    return Server(host, settings.port, settings) if given is None else Server(*given, settings)


async def resolve_service(client: ConsulClient, service: str, tag: str | None, server: Server | None) -> Resolution:
    """What both say. They are asked again for a moment if they differ, because they are never asked at once."""
    deadline = time.monotonic() + AGREE_SECONDS
    while True:
        found = await _catalog(client, service, tag)
        if server is None:
            return found
        found = await _beside(found, client, server)
        if not found.differences or (found.dns and found.dns.failure) or time.monotonic() > deadline:
            return found
        await asyncio.sleep(_PAUSE_SECONDS)


async def _catalog(client: ConsulClient, service: str, tag: str | None) -> Resolution:
    listed = (await client.health_service(service, tag=tag)).value
    instances = tuple(
        CatalogInstance(h.service.id, h.node.name, h.address, h.service.port, h.status, h.service.tags)
        for h in sorted(listed, key=lambda h: (h.node.name, h.service.id))
    )
    return Resolution(service, tag, sum(i.status == PASSING for i in instances), instances)


async def _beside(found: Resolution, client: ConsulClient, server: Server) -> Resolution:
    """``found`` with DNS beside it: as most clients ask, and whole if that is not enough."""
    name = server.settings.name_of(found.service, found.tag, client.address.datacenter)
    side = DnsSide(str(server), name)
    if server.port is None:
        failure = f"the Consul agent at {client.address} has its DNS switched off (ports.dns)"
        return replace(found, dns=replace(side, failure=failure), differences=(failure,))
    try:
        by_udp = _side(side, await look_up(server.host, server.port, name))
        unlike = differences(found.instances, by_udp, only_passing=server.settings.only_passing)
        if not unlike:
            return replace(found, dns=by_udp)
        whole = _side(side, await look_up(server.host, server.port, name, by_tcp=True))
    except (ConsulUnavailable, ConsulRefused) as error:
        return replace(found, dns=replace(side, failure=str(error)), differences=(str(error),))
    unlike = differences(found.instances, whole, only_passing=server.settings.only_passing)
    if not unlike:
        few = f"{len(by_udp.services)} of {len(whole.services)} instances"
        unlike = (f"asked by UDP, DNS leaves records out: {few} (dns_config.udp_answer_limit, enable_truncate)",)
    return replace(found, dns=whole, differences=unlike)


def _side(side: DnsSide, answer: DnsAnswer) -> DnsSide:
    services = tuple(DnsTarget(s.address, s.port, s.weight) for s in answer.services)
    return replace(side, addresses=answer.addresses, services=services, ttl_seconds=answer.ttl_seconds)
