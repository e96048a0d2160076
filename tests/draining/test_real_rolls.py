"""Rolling restarts of real processes with a real Consul: clients see nothing, and a leader's death changes nothing."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPException

import httpx
import pytest
from consul_proxy import ConsulProxy, Trap
from hall import SERVICE, Hall, succeeded
from real_world import Process, World

from citadel_consul.consul.address import parse_address
from citadel_consul.core.operation import Kind, OperationState
from citadel_consul.discovery import ConsulTransport, Resolver

pytestmark = [pytest.mark.consul, pytest.mark.slow, pytest.mark.long]

NODES = ("n1", "n2", "n3")
CLIENTS = 8
PAUSE_SECONDS = 0.02
ROLL_SECONDS = 240.0
LEAST_WRITES = 5
"""A roll of two instances has at least so many (to stop and to start each, and the end); fewer would prove nothing."""


@dataclass
class Traffic:
    """Clients of the discovery library, which ask again and again; half of them by a method that is never repeated."""

    url: str
    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, consul: str, until: asyncio.Event) -> None:
        resolver = Resolver(consul=parse_address(consul))
        clients = httpx.AsyncClient(transport=ConsulTransport(resolver), timeout=30.0)
        async with resolver, clients as client, asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._ask(client, "POST" if number % 2 else "GET", until))

    async def by_all(self, processes: set[str]) -> None:
        """Wait until each of ``processes`` has answered, or fail."""
        async with asyncio.timeout(30.0):
            while not processes <= set(self.answers):
                self.news.clear()
                await self.news.wait()

    async def _ask(self, client: httpx.AsyncClient, method: str, until: asyncio.Event) -> None:
        while not until.is_set():
            try:
                response = await client.request(method, self.url)
                response.raise_for_status()
            except httpx.HTTPError as error:
                self.failures.append(f"{method}: {error!r}")
            else:
                self.answers.append(response.text)
                self.news.set()
            await asyncio.sleep(PAUSE_SECONDS)


async def test_no_request_fails_while_three_instances_are_rolled(real: World) -> None:
    hall = Hall(real, NODES)
    await asyncio.to_thread(hall.open)
    traffic, end = Traffic(f"http://{SERVICE}.consul/"), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(traffic.run(real.consul, end))
        await traffic.by_all(hall.lives())
        operation = await asyncio.to_thread(real.operate, Kind.RESTART, SERVICE, rolling=True, within=ROLL_SECONDS)
        succeeded(operation, real)
        await traffic.by_all(hall.lives())  # the last instance takes part again
        end.set()
    print(f"{len(traffic.answers)} requests, {len(traffic.failures)} failures")
    assert traffic.failures == []
    assert [len(hall.pids(node)) for node in NODES] == [2, 2, 2]
    assert set(traffic.answers) == hall.lives()
    assert hall.fewest_ready() == 2
    assert all("drain-timed-out" not in hall.history(node) for node in NODES)


def test_without_a_drain_the_request_in_hand_would_be_lost(real: World) -> None:
    """What the test above is worth: the same service ends at once when it is told to stop."""
    hall = Hall(real, ("n1",))
    hall.open()
    with ThreadPoolExecutor() as pool:
        held = pool.submit(hall.get, "n1", "/held")
        real.until(lambda: '"active": 1' in hall.get("n1", "/health"), what="the request to arrive")
        succeeded(real.operate(Kind.RESTART, SERVICE, rolling=True, force=True, drain_seconds=0.0, within=60.0), real)
        with pytest.raises((OSError, HTTPException)):
            held.result()


@dataclass
class Succession:
    """Orchestrators, each behind a proxy of its own: the first leads, and the second is there to follow it."""

    hall: Hall
    proxies: ExitStack
    line: list[tuple[Process, ConsulProxy]] = field(default_factory=list)
    count: int = 0

    def fill(self) -> None:
        """See to it that one leads and another stands by."""
        world = self.hall.world
        while len(self.line) < 2:
            self.count += 1
            proxy = self.proxies.enter_context(ConsulProxy(world.consul))
            self.line.append((world.orchestrator(f"o{self.count}", consul=proxy.address), proxy))
            world.until(lambda: (found := world.leader()) and found["api"] == self.line[0][0].api, what="the leader")

    def roll(self, nth: int, *, before: bool) -> bool:
        """Roll while the leader dies at its nth write; returns whether there was one."""
        self.fill()
        hall, world, (leader, proxy) = self.hall, self.hall.world, self.line[0]
        counts = {node: len(hall.pids(node)) for node in hall.nodes}
        proxy.writes = 0
        trap = proxy.trap = Trap(nth, before, leader.popen.kill)
        operation = world.operate(Kind.RESTART, SERVICE, rolling=True, drain_seconds=20.0, within=ROLL_SECONDS)
        proxy.trap = None
        succeeded(operation, world)
        for node in hall.nodes:
            assert len(hall.pids(node)) == counts[node] + 1, f"{node}, write {nth}\n{world.logs()}"
            assert hall.running(node) == hall.pids(node)[-1:], f"{node}, write {nth}\n{world.logs()}"
        if trap.sprung:
            leader.kill()
            del self.line[0]
        return trap.sprung


def test_a_roll_survives_the_death_of_its_leader_at_each_write(real: World) -> None:
    """Before the first, and after each: what comes before the next one is the same to whoever follows."""
    hall = Hall(real, ("n1", "n2"))
    hall.open()
    assert real.processes[-1].terminate() == 0  # from here on there are leaders behind proxies
    with ExitStack() as proxies:
        succession = Succession(hall, proxies)
        assert succession.roll(1, before=True)
        nth = 1
        while succession.roll(nth, before=False):
            nth += 1
        for orchestrator, _ in succession.line:
            orchestrator.kill()
    print(f"struck after {nth - 1} writes of a roll")
    assert nth - 1 >= LEAST_WRITES
    assert hall.fewest_ready() == 1
    assert all(hall.history(node).count("stopping") == nth + 1 for node in hall.nodes)


def test_a_leader_that_is_replaced_while_an_instance_drains_has_told_all_there_is_to_know(real: World) -> None:
    """The hardest moment: requests are in hand, the order is given, and nobody leads for a while."""
    hall = Hall(real, NODES)
    hall.open()
    with httpx.Client(timeout=60.0) as client:
        operation_id = real.request(Kind.RESTART, SERVICE, rolling=True)
        real.until(lambda: "draining" in hall.history("n1"), what="the drain")
        real.processes[-1].kill()
        assert client.get(hall.url("n2")).status_code == 200
        real.until(lambda: "stopped" in hall.history("n1"), 30.0, "its end without a leader")
        assert hall.history("n2") == ["started", "ready"]
        real.orchestrator("o2")
        operation = real.end_of(operation_id, ROLL_SECONDS)
    assert operation.state is OperationState.SUCCEEDED
    assert [len(hall.pids(node)) for node in NODES] == [2, 2, 2]
    assert hall.fewest_ready() == 2
