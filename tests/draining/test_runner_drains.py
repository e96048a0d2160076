"""A runner that is told to drain: what it says, when it stops, and what changes its mind. On a machine of fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from citadel_consul.agent.runner import InstanceRunner
from citadel_consul.agent.surroundings import Readiness, Surroundings
from citadel_consul.backends.base import Exit
from citadel_consul.backends.fake import FakeBackend, FakeMachine
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Instance, ProcessBackend, ServiceSpec

INSTANCE = Instance("s", "n")
SPEC = ServiceSpec(name="s", type="t", nodes=("n",), backend=ProcessBackend(command=("x",)))
NOW = 1_000.0
UP, DRAIN = Desired(run=True, generation=1), Desired(run=False, generation=2, drain_seconds=300.0)


class Catalog:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def announce(self, spec: ServiceSpec, instance: Instance) -> None:
        del spec, instance
        self.told.append("announce")

    def adopt(self, instance: Instance, spec: ServiceSpec) -> None:
        del instance, spec
        self.told.append("adopt")

    def adopt_leaving(self, instance: Instance) -> None:
        del instance
        self.told.append("adopt leaving")

    async def mark_down(self, spec: ServiceSpec, instance: Instance) -> None:
        del spec, instance
        self.told.append("mark down")

    async def withdraw(self, instance: Instance) -> None:
        del instance
        self.told.append("withdraw")


class Ready:
    async def until_ready(self, spec: ServiceSpec) -> None: ...


class NeverReady:
    async def until_ready(self, spec: ServiceSpec) -> None:
        del spec
        await asyncio.Event().wait()


@dataclass
class Requests:
    """What the instance has in hand: a drain ends when ``done`` is set."""

    done: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    tell: Callable[[int | None], None] = lambda _: None
    pid: int | None = None

    async def drain(
        self, spec: ServiceSpec, instance: Instance, pid: int | None, tell: Callable[[int | None], None]
    ) -> None:
        del spec, instance
        self.tell, self.pid = tell, pid
        self.began.set()
        await self.done.wait()


@dataclass
class Bench:
    """A runner at work, and what is around it."""

    runner: InstanceRunner
    machine: FakeMachine
    catalog: Catalog
    requests: Requests
    reports: list[Observed]
    news: asyncio.Condition
    notes: list[str]

    async def until(self, condition: Callable[[Observed], object]) -> Observed:
        """Wait until what is observed is so."""
        async with asyncio.timeout(5), self.news:
            await self.news.wait_for(lambda: condition(self.runner.observed))
        return self.runner.observed

    async def until_phase(self, phase: Phase) -> Observed:
        return await self.until(lambda seen: seen.phase is phase)

    async def up_and_draining(self) -> Observed:
        """Start it, and have it drain."""
        self.runner.want(UP)
        await self.until_phase(Phase.READY)
        self.runner.want(DRAIN)
        seen = await self.until_phase(Phase.DRAINING)
        await self.requests.began.wait()
        return seen

    def did(self, what: str) -> int:
        return sum(entry[0] == what for entry in self.machine.history)


async def fresh_spec_of(_: str) -> ServiceSpec:
    return SPEC


@asynccontextmanager
async def at_work(
    machine: FakeMachine | None = None, last: Observed | None = None, readiness: Readiness | None = None
) -> AsyncIterator[Bench]:
    machine, catalog, requests, news = machine or FakeMachine(), Catalog(), Requests(), asyncio.Condition()
    reports: list[Observed] = []
    notes: list[str] = []
    async with asyncio.timeout(20), FakeBackend(machine) as backend, asyncio.TaskGroup() as group:

        def report(_: Instance, seen: Observed) -> None:
            reports.append(seen)
            group.create_task(_notify(news))

        around = Surroundings(
            stack="demo",
            backend=backend,
            catalog=catalog,
            readiness=readiness or Ready(),
            drainer=requests,
            spec_of=lambda _: SPEC,
            fresh_spec_of=fresh_spec_of,
            stop_timeout_of=lambda _: 1.0,
            report=report,
            forget=lambda _: None,
            note=lambda what, *_: notes.append(what),
            wall=lambda: NOW,
        )
        runner = InstanceRunner(INSTANCE, around, last)
        backend.set_exit_sink(runner.exited)
        task = group.create_task(runner.run())
        yield Bench(runner, machine, catalog, requests, reports, news, notes)
        task.cancel()


async def _notify(news: asyncio.Condition) -> None:
    async with news:
        news.notify_all()


async def test_it_is_stopped_when_nothing_is_in_flight_any_more_and_not_before() -> None:
    async with at_work() as bench:
        seen = await bench.up_and_draining()
        assert (seen.generation, seen.drain_until, seen.in_flight) == (1, NOW + 300.0, None)
        assert seen.alive
        assert bench.requests.pid == bench.machine.running()[INSTANCE].pid
        bench.requests.tell(3)
        assert (await bench.until(lambda seen: seen.in_flight == 3)).phase is Phase.DRAINING
        assert bench.did("stop") == 0
        bench.requests.done.set()
        seen = await bench.until(lambda seen: seen.generation == 2)
        assert (seen.phase, seen.drain_until, seen.in_flight) == (Phase.STOPPED, None, None)
        assert bench.catalog.told == ["announce", "withdraw"]
        assert bench.notes[-3:] == ["draining", "stopping", "stopped"]


async def test_it_is_stopped_when_its_time_is_up() -> None:
    async with at_work() as bench:
        bench.runner.want(UP)
        await bench.until_phase(Phase.READY)
        bench.runner.want(replace(DRAIN, drain_seconds=0.01))
        await bench.until(lambda seen: seen.generation == 2)
        assert bench.notes[-4:] == ["draining", "drain-timed-out", "stopping", "stopped"]
        assert not bench.machine.running()


async def test_what_is_not_ready_has_nothing_to_drain() -> None:
    async with at_work(readiness=NeverReady()) as bench:
        bench.runner.want(UP)
        await bench.until_phase(Phase.STARTING)
        bench.runner.want(DRAIN)
        await bench.until(lambda seen: seen.generation == 2)
        assert bench.notes == ["started", "stopping", "stopped"]
        assert not bench.machine.running()


@pytest.mark.parametrize("grace", [None, 0.0])
async def test_an_order_to_stop_without_a_drain_ends_the_drain(grace: float | None) -> None:
    async with at_work() as bench:
        await bench.up_and_draining()
        bench.runner.want(Desired(run=False, generation=3, grace_seconds=grace))
        seen = await bench.until(lambda seen: seen.generation == 3)
        assert seen.phase is Phase.STOPPED
        assert not bench.requests.done.is_set()
        assert bench.did("stop") == 1


async def test_a_second_order_to_drain_changes_nothing_and_is_answered() -> None:
    async with at_work() as bench:
        await bench.up_and_draining()
        bench.runner.want(replace(DRAIN, generation=3))
        bench.requests.done.set()
        seen = await bench.until(lambda seen: seen.generation == 3)
        assert seen.phase is Phase.STOPPED
        assert bench.did("stop") == 1


async def test_what_is_wanted_again_serves_on_and_was_never_stopped() -> None:
    async with at_work() as bench:
        ready = (await bench.up_and_draining()).ready_at
        bench.runner.want(Desired(run=True, generation=3))
        seen = await bench.until(lambda seen: seen.phase is Phase.READY and seen.generation == 3)
        assert (seen.drain_until, seen.in_flight, seen.ready_at) == (None, None, ready)
        assert bench.catalog.told == ["announce", "announce"]
        assert (bench.did("start"), bench.did("stop")) == (1, 0)


async def test_what_was_wanted_again_can_be_drained_again() -> None:
    async with at_work() as bench:
        await bench.up_and_draining()
        bench.runner.want(Desired(run=True, generation=3))
        await bench.until(lambda seen: seen.generation == 3)
        bench.requests.began.clear()
        bench.runner.want(replace(DRAIN, generation=4))
        await bench.requests.began.wait()
        assert bench.runner.observed.drain_until == NOW + 300.0
        bench.requests.done.set()
        assert (await bench.until(lambda seen: seen.generation == 4)).phase is Phase.STOPPED


async def test_what_dies_while_it_drains_is_stopped_and_how_it_died_is_said() -> None:
    async with at_work() as bench:
        await bench.up_and_draining()
        bench.machine.end(INSTANCE, Exit.with_status(3))
        seen = await bench.until(lambda seen: seen.generation == 2)
        assert (seen.phase, seen.exit_code, seen.detail) == (Phase.STOPPED, 3, "exit status 3")
        assert not bench.requests.done.is_set()


async def test_an_agent_that_comes_back_goes_on_with_the_drain_until_the_same_moment() -> None:
    machine = FakeMachine()
    async with at_work(machine) as before:
        last = await before.up_and_draining()
    async with at_work(machine, replace(last, drain_until=NOW + 17.0)) as bench:
        bench.runner.want(DRAIN)
        await bench.requests.began.wait()
        assert bench.runner.observed.phase is Phase.DRAINING
        assert bench.runner.observed.drain_until == NOW + 17.0
        bench.requests.done.set()
        await bench.until(lambda seen: seen.generation == 2)
        assert bench.catalog.told == ["adopt leaving", "withdraw"]
    assert [what for what, _, _ in machine.history] == ["start", "stop", "exit"]


async def test_an_agent_that_comes_back_after_its_death_says_that_it_is_stopped() -> None:
    machine = FakeMachine()
    async with at_work(machine) as before:
        last = await before.up_and_draining()
    machine.end(INSTANCE)
    async with at_work(machine, last) as bench:
        bench.runner.want(DRAIN)
        seen = await bench.until(lambda seen: seen.generation == 2)
        assert seen.phase is Phase.STOPPED
        assert not bench.requests.began.is_set()
