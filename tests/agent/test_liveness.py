"""While Consul does not call an instance passing, its node agent looks for itself. With a real Consul, real probes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from consul_process import ConsulSpace

from citadel_consul.agent import examination
from citadel_consul.agent.draining import Drainer
from citadel_consul.agent.examination import Diagnosis
from citadel_consul.agent.liveness import Liveness, Place
from citadel_consul.agent.readiness import Prober
from citadel_consul.agent.registrar import Registrar
from citadel_consul.agent.runner import InstanceRunner
from citadel_consul.agent.surroundings import Surroundings
from citadel_consul.agent.vitals import with_diagnosis
from citadel_consul.backends.fake import FakeBackend, FakeMachine
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.healing.flapping import LAPSES_KEPT
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import Check, CheckKind, Instance, ProcessBackend, ServiceSpec
from citadel_consul.rendering.identity import check_id, service_id

pytestmark = pytest.mark.consul
WITHIN_SECONDS = 15.0


@dataclass
class Bedside:
    """One ready instance, registered with Consul, and what is said of it."""

    client: ConsulClient
    stack: str
    consul_node: str
    spec: ServiceSpec
    since: float = field(default_factory=time.time)
    phase: Phase = Phase.READY
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.instance = Instance(self.spec.name, "n1")
        last = Observed(1, self.phase, self.since, started_at=self.since)
        registrar, prober = Registrar(self.client, self.stack, "n1", lambda _spec, _status: {}), Prober()
        around = Surroundings(
            stack=self.stack,
            backend=FakeBackend(FakeMachine()),
            catalog=registrar,
            readiness=prober,
            drainer=Drainer(self.client, registrar, prober),
            spec_of=lambda _: self.spec,
            fresh_spec_of=self._fresh_spec_of,
            stop_timeout_of=lambda _: 1.0,
            report=lambda _instance, _seen: None,
            forget=lambda _: None,
            note=lambda what, _instance, _seen: self.notes.append(what),
            wall=time.time,
        )
        self.runner = InstanceRunner(self.instance, around, last)

    async def _fresh_spec_of(self, _: str) -> ServiceSpec:
        return self.spec

    @property
    def seen(self) -> Observed:
        return self.runner.observed

    @property
    def identity(self) -> str:
        return service_id(self.stack, self.spec.name, "n1")

    async def claim(self, check: Check, status: str, ttl_seconds: float | None = None) -> None:
        """Register the instance with a check that only the test feeds, in ``status``."""
        ttl = f"{ttl_seconds or 3600.0}s"
        body = {"CheckID": check_id(self.identity, check.name), "Name": check.name, "TTL": ttl, "Status": status}
        await self.client.register_service({"ID": self.identity, "Name": self.spec.name, "Checks": [body]})

    async def until(self, condition: Callable[[Observed], object]) -> None:
        async with asyncio.timeout(WITHIN_SECONDS):
            while not condition(self.seen):  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.02)


@asynccontextmanager
async def bedside(
    consul: ConsulSpace, *checks: Check, phase: Phase = Phase.READY, ago: float = 0.0
) -> AsyncIterator[Bedside]:
    """An instance whose node agent is awake."""
    spec = ServiceSpec("s", "t", ("n1",), ProcessBackend(("x",)), checks=checks)
    async with ConsulClient(parse_address(consul.address)) as client, Prober() as prober:
        made = Bedside(client, consul.stack, consul.node, spec, time.time() - ago, phase)
        place = Place(consul.stack, "n1", consul.node)
        liveness = Liveness(client, place, prober, {"s": made.runner}, lambda _: spec, time.time)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(liveness.run())
            try:
                yield made
            finally:
                task.cancel()


def tcp(port: int, interval: float = 0.3) -> Check:
    return Check("tcp", CheckKind.TCP, f"127.0.0.1:{port}", interval_seconds=interval, timeout_seconds=0.5)


def listener() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen()
    return made


async def test_what_consul_calls_critical_and_nobody_reaches_is_confirmed(consul: ConsulSpace) -> None:
    with listener() as gone:
        check = tcp(gone.getsockname()[1])
    async with bedside(consul, check) as bed:
        await bed.claim(check, "critical")
        await bed.until(lambda seen: seen.lapses)
        await bed.until(lambda seen: seen.failing_since is not None)
        assert bed.seen.failing_since == bed.seen.lapses[0]
        assert bed.seen.failure == "tcp: Connection refused"
        assert bed.notes == ["failing"]


async def test_an_agent_that_does_not_get_its_turn_in_time_confirms_nothing(
    consul: ConsulSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "MOST_PATIENCE", math.inf)
    with listener() as gone:
        check = tcp(gone.getsockname()[1])
    async with bedside(consul, check) as bed, asyncio.TaskGroup() as group:
        hog = group.create_task(_keep_the_loop_busy(check.timeout_seconds))
        await bed.claim(check, "critical")
        await bed.until(lambda seen: seen.lapses)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10 * check.timeout_seconds):
                await bed.until(lambda seen: seen.failing_since)
        assert bed.seen.failing_since is None
        hog.cancel()
        await bed.until(lambda seen: seen.failing_since)


async def _keep_the_loop_busy(seconds: float) -> None:
    while True:
        time.sleep(seconds)  # noqa: ASYNC251  # that is the point
        await asyncio.sleep(0.01)


async def test_what_consul_calls_critical_and_answers_is_contradicted_once(consul: ConsulSpace) -> None:
    with listener() as there:
        check = tcp(there.getsockname()[1])
        async with bedside(consul, check) as bed:
            await bed.claim(check, "critical")
            await bed.until(lambda seen: seen.contradicted_since is not None)
            await asyncio.sleep(1.0)
            assert bed.seen.failing_since is None
            assert bed.seen.lapses == ()
            assert bed.notes == ["contradicted"]


async def test_nothing_is_said_any_more_once_consul_calls_it_passing(consul: ConsulSpace) -> None:
    with listener() as there:
        check = tcp(there.getsockname()[1])
        async with bedside(consul, check) as bed:
            await bed.claim(check, "critical")
            await bed.until(lambda seen: seen.contradicted_since is not None)
            await bed.client.check_update(check_id(bed.identity, check.name), "passing")
            await bed.until(lambda seen: seen.contradicted_since is None)


async def test_a_service_that_consul_calls_passing_is_not_asked(consul: ConsulSpace) -> None:
    with listener() as gone:
        check = tcp(gone.getsockname()[1])
    async with bedside(consul, check) as bed:
        await bed.claim(check, "passing")
        await asyncio.sleep(1.0)
        assert bed.seen == replace(bed.seen, lapses=(), failing_since=None, contradicted_since=None)


async def test_of_a_check_that_only_consul_can_run_the_local_consul_agent_is_asked(consul: ConsulSpace) -> None:
    check = Check("alive", CheckKind.TTL, ttl_seconds=0.5)
    async with bedside(consul, check) as bed:
        await bed.claim(check, "passing", ttl_seconds=0.5)  # and nobody feeds it
        await bed.until(lambda seen: seen.failing_since is not None)
        assert bed.seen.failure == "alive: Consul's ttl check alive is critical"


async def test_a_maintenance_mark_is_no_failure(consul: ConsulSpace) -> None:
    with listener() as there:
        check = tcp(there.getsockname()[1])
        async with bedside(consul, check) as bed:
            await bed.claim(check, "passing")
            await bed.client.service_maintenance(bed.identity, True, "work")
            await asyncio.sleep(1.0)
            assert bed.notes == []
            assert bed.seen.contradicted_since is None


async def test_a_start_that_takes_long_says_what_it_waits_for(consul: ConsulSpace) -> None:
    with listener() as gone:
        check = tcp(gone.getsockname()[1])
    async with bedside(consul, check, phase=Phase.STARTING, ago=60.0) as bed:
        await bed.until(lambda seen: seen.failing_since is not None)
        assert bed.seen.failure == "tcp: Connection refused"
        assert bed.seen.lapses == ()


async def test_a_start_whose_probes_pass_is_not_called_failing(consul: ConsulSpace) -> None:
    with listener() as there:
        check = tcp(there.getsockname()[1])
        async with bedside(consul, check, phase=Phase.STARTING, ago=60.0) as bed:
            await bed.until(lambda seen: seen.contradicted_since is not None)
            assert bed.seen.failing_since is None
            assert bed.notes == []


def test_a_report_carries_a_bounded_number_of_lapses() -> None:
    seen = Observed(1, Phase.READY, 0.0)
    for number in range(100):
        seen = with_diagnosis(seen, Diagnosis(lapsed_at=float(number)))
    assert seen.lapses == tuple(float(number) for number in range(100 - LAPSES_KEPT, 100))


def test_a_report_forgets_lapses_of_long_ago() -> None:
    seen = with_diagnosis(Observed(1, Phase.READY, 0.0), Diagnosis(lapsed_at=0.0))
    assert with_diagnosis(seen, Diagnosis(lapsed_at=3_601.0)).lapses == (3_601.0,)
