"""A runner that is dismissed goes when nothing runs and nothing is wanted, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from citadel_consul.agent.runner import InstanceRunner
from citadel_consul.agent.surroundings import Surroundings
from citadel_consul.backends.fake import FakeBackend, FakeMachine
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Instance, ProcessBackend, ServiceSpec

INSTANCE = Instance("s", "n")
SPEC = ServiceSpec(name="s", type="t", nodes=("n",), backend=ProcessBackend(command=("x",)))
RUN, STOP = Desired(run=True, generation=1), Desired(run=False, generation=2)


class Node:
    """What a runner needs; ``said`` is what it told. A withdrawal from the catalog lasts until ``gate`` is open."""

    def __init__(self, backend: FakeBackend) -> None:
        self.said: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.around = Surroundings(
            stack="demo",
            backend=backend,
            catalog=self,
            readiness=self,
            drainer=self,
            spec_of=lambda _: SPEC,
            fresh_spec_of=self._spec,
            stop_timeout_of=lambda _: 1.0,
            report=lambda _, observed: self.said.append(str(observed.phase)),
            forget=lambda _: self.said.append("forgotten"),
            note=lambda *_: None,
            wall=lambda: 0.0,
        )

    async def _spec(self, _: str) -> ServiceSpec:
        return SPEC

    async def announce(self, spec: ServiceSpec, instance: Instance) -> None: ...

    def adopt(self, instance: Instance, spec: ServiceSpec) -> None: ...

    def adopt_leaving(self, instance: Instance) -> None: ...

    async def mark_down(self, spec: ServiceSpec, instance: Instance) -> None: ...

    async def withdraw(self, _: Instance) -> None:
        self.said.append("withdrawn")
        await self.gate.wait()

    async def until_ready(self, spec: ServiceSpec) -> None: ...

    async def drain(self, spec: ServiceSpec, instance: Instance, pid: int | None, tell: object) -> None: ...


class Fixture:
    """A runner at work on a node."""

    def __init__(self, machine: FakeMachine, node: Node, runner: InstanceRunner, task: asyncio.Task[None]) -> None:
        self.machine = machine
        self.node = node
        self.runner = runner
        self.task = task

    async def until(self, phase: Phase) -> None:
        """Wait until the runner says ``phase``."""
        async with asyncio.timeout(5):
            while self.runner.observed.phase is not phase:  # noqa: ASYNC110 – it says so to nobody who could wait
                await asyncio.sleep(0)

    async def idle(self) -> None:
        """Let everything run that can."""
        for _ in range(20):
            await asyncio.sleep(0)


@asynccontextmanager
async def running() -> AsyncIterator[Fixture]:
    machine = FakeMachine()
    async with FakeBackend(machine) as backend, asyncio.TaskGroup() as group:
        node = Node(backend)
        runner = InstanceRunner(INSTANCE, node.around, Observed(0, Phase.STOPPED, 0.0))
        task = group.create_task(runner.run())
        yield Fixture(machine, node, runner, task)
        task.cancel()


async def test_what_was_stopped_is_withdrawn_and_forgotten() -> None:
    async with running() as it:
        it.runner.want(RUN)
        await it.until(Phase.READY)
        it.runner.want(STOP)
        await it.until(Phase.STOPPED)
        it.runner.dismiss()
        await asyncio.wait_for(it.task, 5)
        assert it.node.said[-2:] == ["withdrawn", "forgotten"]
        assert it.machine.lives == {}


async def test_what_runs_stays_whatever_is_said() -> None:
    async with running() as it:
        it.runner.want(RUN)
        await it.until(Phase.READY)
        it.runner.dismiss()
        await it.idle()
        assert not it.task.done()
        assert INSTANCE in it.machine.running()
        assert "forgotten" not in it.node.said


async def test_an_earlier_dismissal_does_not_end_what_is_stopped_later() -> None:
    async with running() as it:
        it.runner.want(RUN)
        await it.until(Phase.READY)
        it.runner.dismiss()
        await it.idle()
        it.runner.want(STOP)
        await it.until(Phase.STOPPED)
        await it.idle()
        assert not it.task.done()


async def test_an_order_that_comes_while_it_takes_its_leave_is_followed() -> None:
    async with running() as it:
        await it.idle()
        it.node.gate.clear()
        it.runner.dismiss()
        await it.idle()
        assert it.node.said == ["withdrawn"]
        it.runner.want(RUN)
        it.node.gate.set()
        await it.until(Phase.READY)
        assert not it.task.done()
        assert "forgotten" not in it.node.said
