"""The node agent's part of a drain, piece by piece, against a real Consul and a real socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from consul_process import ConsulProcess

from citadel_consul.agent import draining as draining_module
from citadel_consul.agent.draining import SETTLE_SECONDS, Drainer, dns_ttl_seconds
from citadel_consul.agent.maintenance import MARK, Maintenance
from citadel_consul.agent.readiness import Prober
from citadel_consul.agent.registrar import Registrar
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Check, CheckKind, Instance, ProcessBackend, ServiceSpec
from citadel_consul.store.keys import Keys

STACK, BUSY = "demo", Instance("busy", "n1")
IDENTITY = "demo.busy.n1"
DNS_TTL_SECONDS = 1.5


def rendered(spec: ServiceSpec, status: str) -> dict[str, Any]:
    check = {"CheckID": f"{IDENTITY}:alive", "Name": "alive", "TTL": "600s", "Status": status}
    meta = {"citadel-stack": STACK, "citadel-node": "n1"}
    return {"ID": IDENTITY, "Name": spec.name, "Port": 80, "Meta": meta, "Checks": [check]}


def busy(**fields: Any) -> ServiceSpec:
    return ServiceSpec(name="busy", type="t", nodes=("n1",), backend=ProcessBackend(command=("x",)), **fields)


@dataclass
class Desk:
    """One registered instance, and what it takes to drain it."""

    client: ConsulClient
    registrar: Registrar
    drainer: Drainer
    told: list[int | None] = field(default_factory=list)

    async def passing(self) -> bool:
        return bool((await self.client.health_service("busy", passing=True)).value)

    async def until_hidden(self) -> None:
        found = await self.client.health_service("busy", passing=True)
        while found.value:
            found = await self.client.health_service("busy", passing=True, index=found.index, wait_seconds=1.0)


@asynccontextmanager
async def desk(consul: ConsulProcess, spec: ServiceSpec) -> AsyncIterator[Desk]:
    async with ConsulClient(parse_address(consul.address)) as client, Prober() as prober, asyncio.timeout(60):
        registrar = Registrar(client, STACK, "n1", rendered)
        await registrar.announce(spec, BUSY)
        yield Desk(client, registrar, Drainer(client, registrar, prober))
        await registrar.withdraw(BUSY)


@dataclass
class Health:
    """A health endpoint that says what it is told to, and puts down each question."""

    body: str
    asks: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            self.asks.put_nowait(None)
            body = self.body.encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/health"


# --- what it waits for ----------------------------------------------------------------------------------------------


@pytest.mark.consul
async def test_an_answer_of_dns_is_waited_for_until_it_is_too_old_to_be_used(
    new_consul: Callable[..., ConsulProcess],
) -> None:
    consul = new_consul(config={"dns_config": {"service_ttl": {"busy": f"{DNS_TTL_SECONDS:g}s"}}})
    async with desk(consul, busy()) as here:
        began = time.monotonic()
        draining = asyncio.create_task(here.drainer.drain(busy(), BUSY, None, here.told.append))
        await here.until_hidden()
        hidden = time.monotonic()
        await draining
        assert time.monotonic() - hidden > DNS_TTL_SECONDS - (hidden - began) - 0.1
        assert time.monotonic() - began >= DNS_TTL_SECONDS > SETTLE_SECONDS
        assert here.told == [0]


@pytest.mark.consul
async def test_the_figure_of_the_service_is_asked_until_it_is_nothing(consul_server: ConsulProcess) -> None:
    health = Health('{"stats": {"open": 2}}')
    async with health.listening() as url:
        check = Check("http", CheckKind.HTTP, url, timeout_seconds=5.0)
        spec = busy(health_endpoint=url, checks=(check,), metrics={"in_flight": "stats.open"})
        async with desk(consul_server, spec) as here:
            draining = asyncio.create_task(here.drainer.drain(spec, BUSY, None, here.told.append))
            await here.until_hidden()
            for _ in range(health.asks.qsize() + 20):  # longer than it takes to settle
                await health.asks.get()
            assert not draining.done()
            health.body = '{"stats": {"open": 0}}'
            await draining
    assert here.told[0] == 2
    assert here.told[-1] in (0, 2)


@pytest.mark.consul
@pytest.mark.parametrize("body", ["", "{}", '{"stats": {"open": "many"}}', "[" * 70_000])
async def test_what_cannot_be_known_is_waited_out(
    consul_server: ConsulProcess, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(draining_module, "SETTLE_SECONDS", 0.05)
    monkeypatch.setattr(draining_module, "QUIET_SECONDS", 0.05)
    health = Health(body)
    async with health.listening() as url:
        spec = busy(health_endpoint=url, metrics={"in_flight": "stats.open"})
        async with desk(consul_server, spec) as here:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await here.drainer.drain(spec, BUSY, None, here.told.append)
    assert set(here.told) == {None}
    assert not await _is_known(consul_server)


async def _is_known(consul: ConsulProcess) -> bool:
    async with ConsulClient(parse_address(consul.address)) as client:
        return IDENTITY in await client.agent_services()


@pytest.mark.parametrize(
    ("table", "seconds"),
    [
        ({}, 0.0),
        ({"*": "10s"}, 10.0),
        ({"*": "10s", "bus*": "2s", "b*": "3s"}, 2.0),
        ({"*": "10s", "bus*": "2s", "busy": "1m30s"}, 90.0),
        ({"other": "10s", "busyness*": "3s"}, 0.0),
        ({"busy": "soon"}, 0.0),
        (None, 0.0),
    ],
)
def test_the_ttl_is_that_of_the_service_or_of_its_longest_prefix(
    table: Mapping[str, str] | None, seconds: float
) -> None:
    assert dns_ttl_seconds({"DNSServiceTTL": table}, "busy") == seconds


# --- what must not bring it back ------------------------------------------------------------------------------------


@pytest.mark.consul
async def test_mending_the_catalog_leaves_what_drains_out_of_it(consul_server: ConsulProcess) -> None:
    async with desk(consul_server, busy()) as here:
        await here.registrar.conceal(BUSY)
        node = (await here.client.agent_self()).node
        for _ in range(3):
            await here.registrar.mend(node)
        assert not await here.passing()
        assert IDENTITY in await here.client.agent_services(), "it is no ghost"
        await here.client.deregister_service(IDENTITY)
        await here.registrar.mend(node)
        assert IDENTITY not in await here.client.agent_services()


@pytest.mark.consul
async def test_what_is_announced_again_is_found_again(consul_server: ConsulProcess) -> None:
    async with desk(consul_server, busy()) as here:
        await here.registrar.conceal(BUSY)
        await here.registrar.announce(busy(), BUSY)
        assert not any(check.is_maintenance for check in (await here.client.agent_checks()).values())


@pytest.mark.consul
@pytest.mark.parametrize(("phase", "lifted"), [(Phase.READY, True), (Phase.DRAINING, False), (Phase.STOPPING, False)])
async def test_a_hold_that_ends_does_not_bring_back_what_is_leaving(
    consul_server: ConsulProcess, phase: Phase, lifted: bool
) -> None:
    async with desk(consul_server, busy()) as here:
        await here.client.service_maintenance(IDENTITY, True, f"{MARK}: somebody")
        looks = asyncio.Queue[None]()

        def phases() -> list[tuple[str, Phase]]:
            looks.put_nowait(None)
            return [("busy", phase)]

        maintenance = Maintenance(here.client, Keys(STACK), "n1", phases, time.time)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(maintenance.run())
            for _ in range(2):  # the second look comes after the first has done its work
                await looks.get()
            marked = any(check.is_maintenance for check in (await here.client.agent_checks()).values())
            running.cancel()
        assert marked is not lifted
