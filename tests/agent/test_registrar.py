"""What a registrar mends, on a real Consul whose catalog forgets and remembers: a snapshot is restored."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from consul_process import ConsulProcess

from citadel_consul.agent.registrar import Registrar
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.model import Check, CheckKind, Instance, ProcessBackend, ServiceSpec

pytestmark = pytest.mark.consul

STACK, NODE = "demo", "n1"
TCP = Check("tcp", CheckKind.TCP, "127.0.0.1:9", interval_seconds=60.0, timeout_seconds=1.0)
CHECKED = ServiceSpec(name="checked", type="test", nodes=(NODE,), backend=ProcessBackend(("a",)), checks=(TCP,))
UNCHECKED = ServiceSpec(name="unchecked", type="test", nodes=(NODE,), backend=ProcessBackend(("a",)))
SPECS = (CHECKED, UNCHECKED)


class RecordingConsul(ConsulClient):
    """A real Consul, and the ids of what was registered with it."""

    registered: list[str]

    async def register_service(self, definition: Mapping[str, Any], *, replace_checks: bool = False) -> None:
        self.registered.append(definition["ID"])
        await super().register_service(definition, replace_checks=replace_checks)


@dataclass
class Site:
    """A registrar at a Consul of its own."""

    consul: ConsulProcess
    client: RecordingConsul
    registrar: Registrar

    async def listed(self) -> set[str]:
        return set(await self.client.node_services(self.consul.node)) - {"consul"}

    async def until_listed(self, wanted: set[str]) -> None:
        async with asyncio.timeout(20):
            while await self.listed() != wanted:  # noqa: ASYNC110  # it is another process that is waited for
                await asyncio.sleep(0.02)


@pytest.fixture
async def site(new_consul: Callable[..., ConsulProcess]) -> AsyncIterator[Site]:
    consul = new_consul()
    async with RecordingConsul(parse_address(consul.address)) as client:
        client.registered = []
        yield Site(consul, client, Registrar(client, STACK, NODE, _render))


def _render(spec: ServiceSpec, status: str) -> dict[str, Any]:
    return {
        "ID": _id(spec),
        "Name": spec.name,
        "Meta": {"citadel-stack": STACK, "citadel-node": NODE},
        "Checks": [
            {"CheckID": f"{_id(spec)}:{c.name}", "Name": c.name, "TCP": c.target, "Interval": "60s", "Status": status}
            for c in spec.checks
        ],
    }


def _id(spec: ServiceSpec) -> str:
    return f"{STACK}.{spec.name}.{NODE}"


def _snapshot(consul: ConsulProcess) -> bytes:
    with urllib.request.urlopen(f"{consul.url}/v1/snapshot", timeout=10) as answer:
        data: bytes = answer.read()
        return data


async def _announce_all(site: Site) -> None:
    for spec in SPECS:
        await site.registrar.announce(spec, Instance(spec.name, NODE))


async def test_a_sound_catalog_is_left_alone(site: Site) -> None:
    await _announce_all(site)
    site.client.registered.clear()
    for _ in range(3):
        await site.registrar.mend(site.consul.node)
    assert site.client.registered == []


async def test_what_the_catalog_forgot_is_registered_again_after_the_second_look(site: Site) -> None:
    empty = _snapshot(site.consul)
    await _announce_all(site)
    site.consul.request("PUT", "/v1/snapshot", empty)
    assert await site.listed() == set()
    site.client.registered.clear()
    await site.registrar.mend(site.consul.node)
    assert site.client.registered == []
    await site.registrar.mend(site.consul.node)
    await site.until_listed({_id(spec) for spec in SPECS})


async def test_what_the_catalog_has_again_is_taken_out_after_the_second_look(site: Site) -> None:
    await _announce_all(site)
    full = _snapshot(site.consul)
    for spec in SPECS:
        await site.registrar.withdraw(Instance(spec.name, NODE))
    await site.until_listed(set())
    site.consul.request("PUT", "/v1/snapshot", full)
    assert await site.listed() == {_id(spec) for spec in SPECS}
    for _ in range(2):
        await site.registrar.mend(site.consul.node)
    await site.until_listed(set())
