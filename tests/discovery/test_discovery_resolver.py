"""The resolver on a real Consul: what it knows, when it knows it, and what remains when Consul goes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from consul_process import ConsulProcess, ConsulSpace
from tiny_server import deregister, register, set_status

from citadel_consul.consul.address import parse_address
from citadel_consul.discovery.failures import NoInstance
from citadel_consul.discovery.feed import WATCHES
from citadel_consul.discovery.naming import ServiceName
from citadel_consul.discovery.resolver import Resolver
from citadel_consul.errors import TemporaryError

pytestmark = pytest.mark.consul


async def until_ports(resolver: Resolver, *ports: int, service: str = "web", seconds: float = 5.0) -> None:
    """Return when exactly these ports serve."""
    async with asyncio.timeout(seconds), contextlib.aclosing(resolver.watch(service)) as changes:
        async for instances in changes:
            if sorted(one.port for one in instances) == sorted(ports):
                return


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Return when ``condition`` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # what is waited for says nothing when it comes
            await asyncio.sleep(0.01)


async def test_instances_are_found_with_all_that_consul_says_of_them(consul: ConsulSpace, resolver: Resolver) -> None:
    register(consul, "web", 1234, Tags=["canary"], Meta={"version": "2"}, Weights={"Passing": 7, "Warning": 2})
    (found,) = await resolver.instances("web")
    assert (found.id, found.service, found.node, found.datacenter) == ("web-1234", "web", consul.node, "dc1")
    assert (found.address, found.status, found.weight) == ("127.0.0.1:1234", "passing", 7)
    assert (found.tags, found.meta) == (("canary",), {"version": "2"})


async def test_an_instance_without_an_address_is_at_that_of_its_node(consul: ConsulSpace, resolver: Resolver) -> None:
    register(consul, "web", 1, Address="")
    (found,) = await resolver.instances("web")
    assert found.host == "127.0.0.1"


async def test_a_warning_instance_serves_with_its_own_weight_while_none_passes(
    consul: ConsulSpace, resolver: Resolver
) -> None:
    register(consul, "web", 1, "warning", Weights={"Passing": 7, "Warning": 2})
    register(consul, "web", 2, "passing")
    await until_ports(resolver, 2)
    set_status(consul, "web", 2, "critical")
    await until_ports(resolver, 1)
    assert (await resolver.choose("web")).weight == 2


async def test_a_tag_narrows_a_service(consul: ConsulSpace, resolver: Resolver) -> None:
    register(consul, "web", 1, Tags=["canary"])
    register(consul, "web", 2)
    assert [one.port for one in await resolver.instances("web", "canary")] == [1]
    assert len(await resolver.instances("web")) == 2


async def test_changes_are_seen_as_they_happen(consul: ConsulSpace, resolver: Resolver) -> None:
    await until_ports(resolver)
    register(consul, "web", 1)
    await until_ports(resolver, 1)
    register(consul, "web", 2)
    await until_ports(resolver, 1, 2)
    register(consul, "web", 3, ID="web-2")  # the same instance at another address
    await until_ports(resolver, 1, 3)
    consul.request("PUT", "/v1/agent/service/maintenance/web-1?enable=true")
    await until_ports(resolver, 3)
    deregister(consul, "web", 2)
    await until_ports(resolver)


async def test_a_service_that_nobody_serves_is_an_error_that_may_be_tried_again(resolver: Resolver) -> None:
    assert await resolver.instances("nobody") == ()
    with pytest.raises(TemporaryError, match="Consul knows no instance of nobody that serves"):
        await resolver.choose("nobody")


async def test_without_consul_the_first_question_fails_with_the_reason() -> None:
    async with Resolver(parse_address("127.0.0.1:1")) as alone:
        with pytest.raises(NoInstance, match=r"no instance of web is known: .*cannot be reached"):
            await alone.instances("web", timeout_seconds=0.1)


async def test_a_reported_failure_keeps_others_from_the_instance(consul: ConsulSpace, resolver: Resolver) -> None:
    register(consul, "web", 1)
    register(consul, "web", 2)
    await until_ports(resolver, 1, 2)
    broken = await resolver.choose("web")
    resolver.report_failure(broken)
    assert broken not in {await resolver.choose("web") for _ in range(20)}


async def test_what_is_known_serves_on_while_consul_is_gone_and_is_true_again_soon_after(
    new_consul: Callable[..., ConsulProcess],
) -> None:
    server = new_consul()
    register(server, "web", 1)
    async with Resolver(parse_address(server.address)) as resolver:
        await until_ports(resolver, 1)
        server.kill()
        view = resolver.view(ServiceName("web"))
        await until(lambda: view.trouble is not None)
        assert (await resolver.choose("web")).port == 1
        # It comes back without memory, which is not taken for the truth, until somebody has registered.
        await asyncio.to_thread(server.start)
        back = time.monotonic()
        await until(lambda: view.trouble is None)
        assert (await resolver.choose("web")).port == 1
        register(server, "web", 2)
        await until_ports(resolver, 2)
        assert time.monotonic() - back < 5


async def test_an_outage_is_said_once_however_many_services_there_are(
    new_consul: Callable[..., ConsulProcess], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "citadel_consul.discovery")
    server = new_consul()
    async with Resolver(parse_address(server.address)) as resolver:
        for service in ("a", "b", "c"):
            await resolver.instances(service)
        server.kill()
        views = list(resolver._views.values())
        await until(lambda: all(view.trouble is not None for view in views))
        await asyncio.to_thread(server.start)
        await until(lambda: all(view.trouble is None for view in views))
    said = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert said == [
        "Consul cannot be asked, what is known stays in use",
        "Consul answers again, about every service in use",
    ]


def set_distance(consul: ConsulSpace, node: str, seconds: float) -> None:
    """Put a node at a round trip of so many seconds from the origin; Consul measures that itself, in minutes."""
    coordinate = {"Vec": [seconds, *[0.0] * 7], "Error": 0.1, "Adjustment": 0.0, "Height": 1e-5}
    consul.request("PUT", "/v1/coordinate/update", {"Node": node, "Segment": "", "Coord": coordinate})


async def test_the_local_nodes_instances_are_preferred_if_asked_for(consul: ConsulSpace) -> None:
    far_away = {"ID": "far", "Service": "web", "Port": 1}
    consul.request("PUT", "/v1/catalog/register", {"Node": "elsewhere", "Address": "10.0.0.9", "Service": far_away})
    register(consul, "web", 2)
    set_distance(consul, consul.node, 0.0)
    set_distance(consul, "elsewhere", 0.1)
    try:
        await until(lambda: len(consul.request("GET", "/v1/coordinate/nodes")) == 2)
        async with Resolver(parse_address(consul.address), near=True) as resolver:
            await until_ports(resolver, 1, 2)
            assert {(await resolver.choose("web")).port for _ in range(20)} == {2}
            set_status(consul, "web", 2, "critical")
            await until_ports(resolver, 1)
            assert (await resolver.choose("web")).port == 1
    finally:
        consul.request("PUT", "/v1/catalog/deregister", {"Node": "elsewhere"})


async def test_closing_ends_every_watch_and_connection(consul: ConsulSpace) -> None:
    register(consul, "web", 1)
    before = asyncio.all_tasks()
    resolver = Resolver(parse_address(consul.address))
    await resolver.instances("web")
    assert asyncio.all_tasks() != before
    await resolver.aclose()
    assert asyncio.all_tasks() == before
    with pytest.raises(RuntimeError, match="closed"):
        await resolver.instances("web")


def connections_to(port: int) -> int:
    """How many established TCP connections of this process's host go to ``port``."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


@contextlib.asynccontextmanager
async def many_services(consul: ConsulSpace, count: int) -> AsyncIterator[Resolver]:
    def register_all() -> None:
        for number in range(count):
            register(consul, f"many-{number}", 1000 + number)

    await asyncio.to_thread(register_all)
    async with Resolver(parse_address(consul.address)) as resolver:
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(resolver.choose(f"many-{number}"))
        yield resolver


async def test_two_hundred_services_take_few_connections_no_threads_and_hardly_any_time(consul: ConsulSpace) -> None:
    threads = threading.active_count()
    async with many_services(consul, 200):
        await asyncio.sleep(0.5)
        gc.collect()
        assert WATCHES <= connections_to(consul.port) <= WATCHES + 16
        assert threading.active_count() <= threads + 1  # asyncio.to_thread made one
        used, began = time.process_time(), time.monotonic()
        await asyncio.sleep(3.0)
        assert (time.process_time() - used) / (time.monotonic() - began) < 0.01


async def test_a_service_without_a_watch_of_its_own_is_fresh_when_it_is_used(consul: ConsulSpace) -> None:
    async with many_services(consul, 40) as resolver:
        cold = next(view for view in resolver._views.values() if not view.live)
        service, port = cold.name.service, cold.instances[0].port
        register(consul, service, port + 5000, ID=f"{service}-{port}")

        def moved() -> bool:
            cold.use()
            return [one.port for one in cold.instances] == [port + 5000]

        await until(moved)
