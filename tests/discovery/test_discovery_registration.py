"""Services that register themselves with a real Consul, from inside and as processes that are told to stop."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from consul_process import ConsulProcess, ConsulSpace
from service_processes import ServiceProcess, wait_for
from tiny_server import TinyServer

from citadel_consul.consul.address import parse_address
from citadel_consul.core.model import Check, CheckKind
from citadel_consul.discovery import Registration, Weights
from citadel_consul.errors import InvalidInput

pytestmark = pytest.mark.consul

NewConsul = Callable[..., ConsulProcess]
NewService = Callable[..., ServiceProcess]


@pytest.fixture
def new_service() -> Iterator[NewService]:
    started: list[ServiceProcess] = []

    def make(*arguments: Any, **more: Any) -> ServiceProcess:
        started.append(ServiceProcess(*arguments, **more))
        return started[-1]

    yield make
    for one in started:
        one.end()


def new_registration(consul: ConsulSpace | ConsulProcess, port: int | None = None, **more: Any) -> Registration:
    more = {"ttl_seconds": 0.6, "drain_seconds": 0.0, "node": "test", **more}
    return Registration("web", port, consul=parse_address(consul.address), **more)


def checks_of(consul: ConsulSpace | ConsulProcess) -> dict[str, str]:
    """The checks of ``web`` in the catalog: id to status."""
    return {check["CheckID"]: check["Status"] for check in consul.request("GET", "/v1/health/checks/web")}


async def until_checks(consul: ConsulSpace | ConsulProcess, expected: dict[str, str], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while await asyncio.to_thread(checks_of, consul) != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


ALIVE = {"web:test:alive": "passing"}


async def test_a_service_is_registered_from_the_templates_with_what_it_says_of_itself(consul: ConsulSpace) -> None:
    async with TinyServer("web").listening() as server:
        registration = new_registration(
            consul,
            server.port,
            version="1.4.0",
            tags=["canary"],
            meta={"team": "search"},
            weights=Weights(passing=30, warning=3),
            type="ai_service",
            address="127.0.0.1",
        )
        async with registration, asyncio.timeout(5):
            await registration.registered()
            found = consul.request("GET", "/v1/agent/services")[f"web:test:{server.port}"]
    assert (found["Service"], found["Port"]) == ("web", server.port)
    assert (found["Address"], found["Tags"]) == ("127.0.0.1", ["canary", "ai_service"])
    assert found["Weights"] == {"Passing": 30, "Warning": 3}
    assert found["Meta"] == {
        "version": "1.4.0",
        "team": "search",
        "citadel-node": "test",
        "citadel-type": "ai_service",
        "citadel-critical": "true",
        "citadel-scheme": "http",
        "external-source": "citadel",
    }


async def test_a_service_is_gone_from_the_catalog_after_the_block(consul: ConsulSpace) -> None:
    async with new_registration(consul):
        await until_checks(consul, ALIVE)
    assert consul.request("GET", "/v1/agent/services") == {}


async def test_nobody_is_told_of_a_service_before_its_port_accepts_connections(consul: ConsulSpace) -> None:
    async with TinyServer("web").listening() as server:
        port = server.port
    async with new_registration(consul, port):
        await asyncio.sleep(0.1)
        assert consul.request("GET", "/v1/agent/services") == {}
        async with TinyServer("web", port).listening():
            await until_checks(consul, {f"web:test:{port}:alive": "passing"})


@pytest.mark.parametrize(
    ("verdict", "status"),
    [(True, "passing"), (None, "passing"), (False, "critical"), ("warning", "warning"), ("nonsense", "critical")],
)
async def test_the_health_function_decides(consul: ConsulSpace, verdict: bool | str | None, status: str) -> None:
    async with new_registration(consul, health=lambda: verdict):
        await until_checks(consul, {"web:test:alive": status})


async def test_a_health_function_that_raises_or_hangs_means_critical_and_may_recover(consul: ConsulSpace) -> None:
    trouble: list[str] = []

    async def health() -> bool:
        if trouble == ["raise"]:
            raise ValueError("a mistake of the service's own")
        if trouble == ["hang"]:
            await asyncio.Event().wait()
        return True

    async with new_registration(consul, health=health):
        await until_checks(consul, ALIVE)
        for fault in ("raise", "hang"):
            trouble[:] = [fault]
            await until_checks(consul, {"web:test:alive": "critical"})
            trouble.clear()
            await until_checks(consul, ALIVE)


async def test_a_service_that_the_agent_forgot_is_registered_again(new_consul: NewConsul) -> None:
    server = new_consul()
    async with new_registration(server):
        await until_checks(server, ALIVE)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await until_checks(server, ALIVE)


async def test_a_service_starts_without_consul_and_is_registered_when_it_comes(new_consul: NewConsul) -> None:
    server = new_consul()
    server.kill()
    async with new_registration(server) as registration:
        await asyncio.sleep(0.05)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(5):
            await registration.registered()
        server.kill()
    # Leaving does not wait for a Consul that is not there.


async def test_draining_is_consuls_maintenance_and_is_not_undone_by_beats(consul: ConsulSpace) -> None:
    async with new_registration(consul, ttl_seconds=0.3) as registration:
        await until_checks(consul, ALIVE)
        await registration.drain()
        draining = {**ALIVE, "_service_maintenance:web:test": "critical"}
        await until_checks(consul, draining)
        await asyncio.sleep(0.4)
        assert checks_of(consul) == draining


async def test_an_operators_maintenance_outlives_a_restart_of_the_service(consul: ConsulSpace) -> None:
    async with new_registration(consul):
        await until_checks(consul, ALIVE)
        consul.request("PUT", "/v1/agent/service/maintenance/web:test?enable=true&reason=disk")
        async with new_registration(consul) as again:
            await again.registered()
            await until_checks(consul, {**ALIVE, "_service_maintenance:web:test": "critical"})


async def test_a_check_that_the_service_no_longer_has_is_removed(consul: ConsulSpace) -> None:
    slow = Check("slow", CheckKind.TTL, ttl_seconds=600.0)
    async with new_registration(consul, checks=[slow]):
        await until_checks(consul, {**ALIVE, "web:test:slow": "passing"})
        async with new_registration(consul):
            await until_checks(consul, ALIVE)


async def test_what_was_killed_while_draining_comes_back_into_service(consul: ConsulSpace) -> None:
    async with new_registration(consul) as killed:
        await until_checks(consul, ALIVE)
        await killed.drain()
        async with new_registration(consul):
            await until_checks(consul, ALIVE)


async def test_further_checks_are_consuls_to_run(consul: ConsulSpace) -> None:
    async with TinyServer("web").listening() as server:
        check = Check("http", CheckKind.HTTP, target=f"http://127.0.0.1:{server.port}/", interval_seconds=1.0)
        async with new_registration(consul, server.port, checks=[check], address="127.0.0.1"):
            identity = f"web:test:{server.port}"
            await until_checks(consul, {f"{identity}:alive": "passing", f"{identity}:http": "passing"})
            async with asyncio.timeout(5):
                while not server.requests:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)


def names_of_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_a_program_without_an_event_loop_registers_from_one_thread(consul: ConsulSpace) -> None:
    with new_registration(consul, health=lambda: "warning"):
        wait_for(lambda: checks_of(consul) == {"web:test:alive": "warning"}, "the registration")
        assert names_of_threads().count("registration of web") == 1
    assert "registration of web" not in names_of_threads()
    assert consul.request("GET", "/v1/agent/services") == {}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"service": "Bad Name"}, "is not a name"),
        ({"remove_after_seconds": 5.0}, "no less than a minute"),
        ({"meta": {"citadel-node": "x"}}, "is set by citadel"),
        ({"template": "none.json.j2"}, "does not exist"),
        ({"checks": [Check("alive", CheckKind.TTL)]}, "is taken"),
    ],
)
def test_what_consul_would_refuse_is_refused_at_once(more: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Registration(**{"service": "web", "port": 80, "consul": parse_address("127.0.0.1:1"), **more})


def answer_of(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        return int(answer.read())


@pytest.mark.parametrize(("mode", "status"), [("async", -signal.SIGTERM), ("sync", -signal.SIGTERM), ("asgi", 0)])
def test_a_service_that_is_told_to_stop_drains_before_it_goes(
    consul: ConsulSpace, new_service: NewService, mode: str, status: int
) -> None:
    service = new_service(consul, "web", mode, drain_seconds=3.0).until_passing()
    service.signal(signal.SIGTERM)
    wait_for(lambda: service.checks.get("_service_maintenance:" + service.instance_id) == "critical", "maintenance")
    assert answer_of(service.port) == service.pid  # who still has the address is still served
    # A server that takes the signal by itself ends in its own way; one that does not ends by the signal.
    assert service.wait() in (status, -signal.SIGTERM)
    assert service.checks == {}


def test_a_second_signal_does_not_wait_for_the_drain(consul: ConsulSpace, new_service: NewService) -> None:
    service = new_service(consul, "web", "asgi", drain_seconds=30.0).until_passing()
    began = time.monotonic()
    service.signal(signal.SIGTERM)
    time.sleep(0.05)
    service.signal(signal.SIGTERM)
    service.wait()
    assert time.monotonic() - began < 15


def test_a_killed_service_turns_critical_within_its_ttl(consul: ConsulSpace, new_service: NewService) -> None:
    service = new_service(consul, "web").until_passing()
    service.signal(signal.SIGKILL)
    wait_for(lambda: service.checks == {"alive": "critical"}, "the check to expire", seconds=4.0)
