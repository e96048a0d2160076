"""Requests to services through httpx: real servers, a real Consul, and servers that misbehave."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
from consul_process import ConsulSpace
from tiny_server import TinyServer, deregister, register, set_status

from citadel_consul.consul.address import parse_address
from citadel_consul.discovery import ConsulTransport, DeadlineExceeded, NoInstance, Resolver, SyncConsulTransport
from citadel_consul.discovery.naming import ServiceName

pytestmark = pytest.mark.consul

WEB = "http://web.consul/"


@asynccontextmanager
async def servers(consul: ConsulSpace, *names: str) -> AsyncIterator[list[TinyServer]]:
    """Servers of the service ``web``, listening and registered as passing."""
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(TinyServer(name).listening()) for name in names]
        for one in found:
            register(consul, "web", one.port)
        yield found


@asynccontextmanager
async def client_of(resolver: Resolver, deadline_seconds: float | None = None) -> AsyncIterator[httpx.AsyncClient]:
    transport = ConsulTransport(resolver, deadline_seconds=deadline_seconds)
    async with httpx.AsyncClient(transport=transport) as client:
        yield client


async def test_requests_are_spread_over_the_instances(consul: ConsulSpace, resolver: Resolver) -> None:
    async with servers(consul, "a", "b", "c"), client_of(resolver) as client:
        served = Counter([(await client.get(WEB)).text for _ in range(60)])
    assert set(served) == {"a", "b", "c"}
    assert min(served.values()) >= 5


async def test_the_caller_sees_the_services_name_and_the_service_its_own(
    consul: ConsulSpace, resolver: Resolver
) -> None:
    async with servers(consul, "a") as (a,), client_of(resolver) as client:
        answer = await client.post("http://web.service.consul/path?q=1", content=b"hello")
    assert answer.url == "http://web.service.consul/path?q=1"
    assert a.requests == ["POST /path?q=1 HTTP/1.1 hello"]
    assert "host: web.service.consul" in a.heads[0].lower()


async def test_a_host_that_is_no_service_is_asked_as_ever(consul: ConsulSpace, resolver: Resolver) -> None:
    async with TinyServer("plain").listening() as plain, client_of(resolver) as client:
        assert (await client.get(f"http://127.0.0.1:{plain.port}/")).text == "plain"


async def test_a_dead_address_costs_one_attempt_and_is_then_left_alone(consul: ConsulSpace, resolver: Resolver) -> None:
    async with servers(consul, "a") as (a,):
        async with TinyServer("b").listening() as b:
            pass
        register(consul, "web", b.port)  # registered as passing, and nobody is there
        async with client_of(resolver) as client:
            for _ in range(20):
                assert (await client.post(WEB, content=b"x")).text == "a"
        assert len(a.requests) == 20


@pytest.mark.parametrize("behaviour", ["reset", "break"])
async def test_what_may_be_repeated_is_repeated_elsewhere_when_it_breaks(
    consul: ConsulSpace, resolver: Resolver, behaviour: str
) -> None:
    async with servers(consul, "good", "bad") as (_, bad), client_of(resolver) as client:
        bad.behave = lambda: behaviour
        assert {(await client.get(WEB)).text for _ in range(20)} == {"good"}
        assert len(bad.requests) >= 1
        keyed = {"Idempotency-Key": "1"}
        assert {(await client.post(WEB, content=b"x", headers=keyed)).text for _ in range(10)} == {"good"}


async def test_what_may_not_be_repeated_fails_when_it_breaks(consul: ConsulSpace, resolver: Resolver) -> None:
    async with servers(consul, "bad") as (bad,), client_of(resolver) as client:
        bad.behave = lambda: "reset"
        with pytest.raises(httpx.TransportError):
            await client.post(WEB, content=b"x")
    assert len(bad.requests) == 1


async def test_an_instance_that_hangs_is_left_within_the_deadline(consul: ConsulSpace, resolver: Resolver) -> None:
    async with servers(consul, "good", "bad") as (_, bad), client_of(resolver, deadline_seconds=0.6) as client:
        bad.behave = lambda: "hang"
        assert {(await client.get(WEB, timeout=30)).text for _ in range(6)} == {"good"}


async def test_the_deadline_bounds_all_attempts_together(consul: ConsulSpace, resolver: Resolver) -> None:
    async with servers(consul, "a", "b") as both, client_of(resolver) as client:
        for one in both:
            one.behave = lambda: "hang"
        began = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded):
            await client.get(WEB, timeout=30, extensions={"deadline": 0.3})
        assert asyncio.get_running_loop().time() - began < 1.0


async def test_an_answer_is_an_answer_whatever_its_status(consul: ConsulSpace, resolver: Resolver) -> None:
    calls: list[httpx.Request] = []

    def unwell(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(503, text="later")

    register(consul, "web", 1)
    register(consul, "web", 2)
    transport = ConsulTransport(resolver, over=httpx.MockTransport(unwell))
    async with httpx.AsyncClient(transport=transport) as client:
        assert (await client.get(WEB)).status_code == 503
    assert len(calls) == 1


async def test_a_stream_is_handed_over_as_it_comes_and_counts_as_under_way(
    consul: ConsulSpace, resolver: Resolver
) -> None:
    async with servers(consul, "a") as (a,), client_of(resolver) as client:
        a.behave = lambda: "stream"
        async with client.stream("GET", WEB) as answer:
            pieces = answer.aiter_raw()
            assert await anext(pieces) == b"first "
            balancer = resolver.view(ServiceName("web")).balancer
            assert list(balancer._loads.values()) == [1]
        assert balancer._loads == {}


async def test_a_request_that_is_given_up_leaves_no_load_behind(consul: ConsulSpace, resolver: Resolver) -> None:
    async with servers(consul, "a") as (a,), client_of(resolver) as client:
        a.behave = lambda: "hang"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.get(WEB)
        assert resolver.view(ServiceName("web")).balancer._loads == {}


async def test_nobody_to_ask_is_an_error_of_httpx_as_well(resolver: Resolver) -> None:
    async with client_of(resolver) as client:
        with pytest.raises(httpx.ConnectError, match="Consul knows no instance of nobody") as caught:
            await client.get("http://nobody.consul/")
    assert isinstance(caught.value, NoInstance)
    assert str(caught.value.request.url) == "http://nobody.consul/"


async def test_a_short_absence_of_everybody_is_waited_out(consul: ConsulSpace, resolver: Resolver) -> None:
    async with servers(consul, "a") as (a,), client_of(resolver) as client:
        await client.get(WEB)
        set_status(consul, "web", a.port, "critical")
        view = resolver.view(ServiceName("web"))
        async with asyncio.timeout(5):
            while view.instances:  # noqa: ASYNC110  # what is waited for says nothing when it comes
                await asyncio.sleep(0.005)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(client.get(WEB))
            await asyncio.sleep(0.02)
            await asyncio.to_thread(set_status, consul, "web", a.port, "passing")
        assert waiting.result().text == "a"


async def test_a_change_reaches_the_next_request(consul: ConsulSpace, resolver: Resolver) -> None:
    async with servers(consul, "a", "b") as (a, _), client_of(resolver) as client:
        await client.get(WEB)
        await asyncio.to_thread(deregister, consul, "web", a.port)
        view = resolver.view(ServiceName("web"))
        async with asyncio.timeout(5):
            while len(view.instances) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert {(await client.get(WEB)).text for _ in range(10)} == {"b"}


async def test_a_transport_of_its_own_reads_the_environment_and_closes_all(
    consul: ConsulSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", consul.address)
    before = asyncio.all_tasks()
    async with servers(consul, "a"), httpx.AsyncClient(transport=ConsulTransport()) as client:
        assert (await client.get(WEB)).text == "a"
    assert {task for task in asyncio.all_tasks() - before if "consul" in task.get_name()} == set()


async def test_threads_share_a_transport_and_see_no_failure(consul: ConsulSpace) -> None:
    count = itertools.count()
    async with servers(consul, "a", "b", "c") as (a, _, _):
        a.behave = lambda: "reset" if next(count) % 3 == 0 else "answer"

        def work() -> Counter[str]:
            transport = SyncConsulTransport(parse_address(consul.address))
            with httpx.Client(transport=transport) as client, ThreadPoolExecutor(4) as pool:
                return Counter(answer.text for answer in pool.map(lambda _: client.get(WEB), range(80)))

        served = await asyncio.to_thread(work)
    assert sum(served.values()) == 80
    assert set(served) >= {"b", "c"}


async def test_the_synchronous_transport_streams_waits_and_says_who_is_missing(consul: ConsulSpace) -> None:
    async with servers(consul, "a") as (a,):

        def work() -> None:
            with httpx.Client(transport=SyncConsulTransport(parse_address(consul.address))) as client:
                with pytest.raises(NoInstance):
                    client.get("http://nobody.consul/")
                a.behave = lambda: "stream"
                with client.stream("GET", WEB) as answer:
                    assert next(answer.iter_raw()) == b"first "
                a.behave = lambda: "hang"
                with pytest.raises(httpx.TimeoutException):
                    client.get(WEB, extensions={"deadline": 0.2})
                assert client.get(f"http://127.0.0.1:{plain.port}/").text == "plain"

        async with TinyServer("plain").listening() as plain:
            await asyncio.to_thread(work)
