"""Another datacenter stands in when nobody serves in this one: two real datacenters, one prepared query."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from consul_process import ConsulProcess
from service_processes import free_port, wait_for
from tiny_server import deregister, register

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.ports import LOOPBACK
from citadel_consul.discovery import Resolver

pytestmark = pytest.mark.consul

# For any service name the instances of this datacenter, else of the nearest other one that has some.
QUERY = {
    "Name": "",
    "Template": {"Type": "name_prefix_match"},
    "Service": {"Service": "${name.full}", "OnlyPassing": True, "Failover": {"NearestN": 2}},
}


def start_datacenter(binary: ConsulBinary, folder: Path, name: str, wan: int, join: int | None) -> ConsulProcess:
    server = ConsulProcess(binary, folder, f"{name}-node", {"datacenter": name})
    ports = server.ports
    server._config |= {
        "ports": {
            "http": ports.http,
            "dns": ports.dns,
            "grpc": ports.grpc,
            "serf_lan": ports.serf,
            "serf_wan": wan,
            "server": ports.server,
            **({"grpc_tls": -1} if binary.release >= (1, 14) else {}),
        },
        "retry_join_wan": [] if join is None else [f"{LOOPBACK}:{join}"],
        "retry_interval_wan": "1s",
    }
    server.start()
    return server


@pytest.fixture
def datacenters(consul_binary: ConsulBinary, tmp_path: Path) -> Iterator[tuple[ConsulProcess, ConsulProcess]]:
    with contextlib.ExitStack() as stack:
        wan = free_port()
        here = start_datacenter(consul_binary, tmp_path, "dc1", wan, None)
        stack.callback(here.end)
        there = start_datacenter(consul_binary, tmp_path, "dc2", free_port(), wan)
        stack.callback(there.end)
        wait_for(lambda: len(here.request("GET", "/v1/catalog/datacenters")) == 2, "the datacenters to meet", 30)
        yield here, there


async def next_port(resolver: Resolver, *expected: int) -> None:
    async with asyncio.timeout(15), contextlib.aclosing(resolver.watch("web")) as changes:
        async for instances in changes:
            if [one.port for one in instances] == list(expected):
                return


async def test_another_datacenter_stands_in_until_a_local_instance_serves_again(
    datacenters: tuple[ConsulProcess, ConsulProcess],
) -> None:
    here, there = datacenters
    here.request("POST", "/v1/query", QUERY)
    register(here, "web", 1)
    register(there, "web", 2)
    async with Resolver(parse_address(here.address), failover=True) as resolver:
        await next_port(resolver, 1)
        deregister(here, "web", 1)
        await next_port(resolver, 2)
        assert (await resolver.choose("web")).datacenter == "dc2"
        register(here, "web", 3)
        await next_port(resolver, 3)


async def test_without_a_prepared_query_nobody_stands_in_and_nothing_breaks(
    datacenters: tuple[ConsulProcess, ConsulProcess], caplog: pytest.LogCaptureFixture
) -> None:
    here, there = datacenters
    register(there, "web", 2)
    async with Resolver(parse_address(here.address), failover=True) as resolver:
        assert await resolver.instances("web") == ()
        async with asyncio.timeout(10):
            while "no prepared query" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        register(here, "web", 1)
        await next_port(resolver, 1)
