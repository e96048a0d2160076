"""What the backend cannot carry out of an end is reported and tried again; it ends nobody's task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from citadel_consul.agent import runner as runner_module
from citadel_consul.agent.runner import InstanceRunner
from citadel_consul.agent.surroundings import Surroundings
from citadel_consul.backends.base import Handle
from citadel_consul.backends.fake import FakeBackend, FakeMachine
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Instance, ProcessBackend, ServiceSpec
from citadel_consul.errors import BackendError, BackendUnavailable

INSTANCE = Instance("s", "n")
SPEC = ServiceSpec(name="s", type="t", nodes=("n",), backend=ProcessBackend(command=("x",)))


class Catalog:
    async def announce(self, spec: ServiceSpec, instance: Instance) -> None: ...

    def adopt(self, instance: Instance, spec: ServiceSpec) -> None: ...

    async def mark_down(self, spec: ServiceSpec, instance: Instance) -> None: ...

    async def withdraw(self, instance: Instance) -> None: ...

    def adopt_leaving(self, instance: Instance) -> None: ...


class Ready:
    async def until_ready(self, spec: ServiceSpec) -> None: ...

    async def drain(self, spec: ServiceSpec, instance: Instance, pid: int | None, tell: object) -> None: ...


async def fresh_spec_of(_: str) -> ServiceSpec:
    return SPEC


@asynccontextmanager
async def running(machine: FakeMachine) -> AsyncIterator[tuple[InstanceRunner, asyncio.Queue[Observed]]]:
    """A runner at work, and what it reports."""
    reports: asyncio.Queue[Observed] = asyncio.Queue()
    async with FakeBackend(machine) as backend, asyncio.TaskGroup() as group:
        around = Surroundings(
            stack="demo",
            backend=backend,
            catalog=Catalog(),
            readiness=Ready(),
            drainer=Ready(),
            spec_of=lambda _: SPEC,
            fresh_spec_of=fresh_spec_of,
            stop_timeout_of=lambda _: 1.0,
            report=lambda _, observed: reports.put_nowait(observed),
            forget=lambda _: None,
            note=lambda *_: None,
            wall=lambda: 0.0,
        )
        runner = InstanceRunner(INSTANCE, around, None)
        task = group.create_task(runner.run())
        yield runner, reports
        task.cancel()


async def until(reports: asyncio.Queue[Observed], phase: Phase, detail: str = "") -> Observed:
    async with asyncio.timeout(5):
        while True:
            observed = await reports.get()
            if observed.phase is phase and detail in observed.detail:
                return observed


async def test_a_stop_that_the_backend_refuses_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "RETRY_SECONDS", 0.01)
    machine = FakeMachine()
    async with running(machine) as (runner, reports):
        runner.want(Desired(run=True, generation=1))
        await until(reports, Phase.READY)
        machine.unproven[INSTANCE] = "its record cannot be read"
        runner.want(Desired(run=False, generation=2))
        await until(reports, Phase.STOPPING, "cannot be stopped: ")
        del machine.unproven[INSTANCE]
        stopped = await until(reports, Phase.STOPPED)
    assert stopped.generation in (1, 2)
    assert INSTANCE not in machine.running()


async def test_what_is_released_is_given_back_and_that_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "RETRY_SECONDS", 0.01)
    machine = FakeMachine()
    async with running(machine) as (runner, reports):
        runner.want(Desired(run=True, generation=1))
        await until(reports, Phase.READY)
        machine.give_back_error = BackendUnavailable("the engine does not answer")
        runner.want(Desired(run=False, generation=2, released=True))
        await until(reports, Phase.READY, "cannot be given back now: the engine does not answer")
        machine.give_back_error = None
        async with asyncio.timeout(5):
            while runner.observed.phase is not Phase.STOPPED:  # noqa: ASYNC110 - what is let go of is reported no more
                await asyncio.sleep(0.005)
    assert machine.history[-1] == ("give-back", INSTANCE, 1)
    assert INSTANCE in machine.running()


async def test_what_cannot_be_put_back_is_let_go_of_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    machine = FakeMachine()
    async with running(machine) as (runner, reports):
        runner.want(Desired(run=True, generation=1))
        await until(reports, Phase.READY)
        machine.give_back_error = BackendError("no such policy")
        runner.want(Desired(run=False, generation=2, released=True))
        async with asyncio.timeout(5):
            while runner.observed.phase is not Phase.STOPPED:  # noqa: ASYNC110 - what is let go of is reported no more
                await asyncio.sleep(0.005)
    assert "s@n is let go of, and not everything is as it was: no such policy" in caplog.text


async def test_another_process_of_an_instance_whose_manager_restarts_it_is_reported_and_is_no_end() -> None:
    machine = FakeMachine()
    async with running(machine) as (runner, reports):
        runner.want(Desired(run=True, generation=1))
        ready = await until(reports, Phase.READY)
        runner.runs_as(Handle("systemd", pid=4711, unit="s.service", invocation="b"))
        again = await until(reports, Phase.READY)
    assert (again.pid, again.unit) == (4711, "s.service")
    assert (again.generation, again.since) == (ready.generation, ready.since)
