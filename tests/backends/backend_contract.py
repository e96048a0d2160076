"""What every backend has to do, whatever runs the services.

A test file of a backend derives from :class:`BackendContract` and gives it a ``harness`` fixture: a machine on which
services can be run, ended from outside and looked at, and of which any number of backends (agents, one after the
other) can be made. Where a service manager stands between the agent and the services, :class:`ManagedContract` is the
one: it can be away, and others can use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

import pytest

from citadel_consul.backends.base import Backend, Exit, Gone, Handle, InstanceExited, Launch, Running, Unproven
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError, BackendUnavailable

STACK = "contract"
NODE = "n1"
LONG = 20.0  # more than a loaded machine needs; never waited out by a test that passes


class Harness(Protocol):
    """A machine to run services on."""

    def backend(self) -> Backend:
        """A new agent's backend."""
        ...

    def steady(self, service: str, generation: int = 1) -> Launch:
        """A launch of a service that runs until it is stopped, and reloads."""
        ...

    def stubborn(self, service: str) -> Launch:
        """A launch of a service that ignores its stop signal."""
        ...

    def failing(self, service: str, status: int) -> Launch:
        """A launch of a service that ends by itself at once."""
        ...

    def impossible(self, service: str) -> Launch:
        """A launch that cannot succeed."""
        ...

    def irreloadable(self, service: str) -> Launch:
        """Like :meth:`steady`, without a way to reload."""
        ...

    async def ready(self, launch: Launch) -> None:
        """Wait until a started service has set itself up."""
        ...

    async def reloads(self, launch: Launch, count: int) -> None:
        """Wait until a service has seen that many reloads."""
        ...

    def kill(self, handle: Handle) -> None:
        """Kill a service from outside."""
        ...

    def is_running(self, handle: Handle) -> bool:
        """Whether it still runs."""
        ...

    def make_unproven(self, instance: Instance) -> None:
        """Take away the proof that what runs is ours."""
        ...


class Exits:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[InstanceExited] = []
        self._arrived = asyncio.Event()

    def __call__(self, exited: InstanceExited) -> None:
        self.seen.append(exited)
        self._arrived.set()

    async def next(self) -> InstanceExited:
        """The one exit that arrives; removed from what was seen."""
        async with asyncio.timeout(LONG):
            await self._arrived.wait()
        self._arrived.clear()
        (only,) = self.seen
        self.seen.clear()
        return only


def watched(backend: Backend) -> Exits:
    """The exits that a backend reports from now on."""
    exits = Exits()
    backend.set_exit_sink(exits)
    return exits


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event announces."""
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110 – other processes set no events of ours
            await asyncio.sleep(0.005)


class BackendContract:
    """The contract, one test a clause."""

    async def test_a_started_instance_runs(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            handle = await backend.start(harness.steady("web"))
            assert harness.is_running(handle)

    async def test_an_exit_that_nobody_asked_for_is_reported_with_its_status(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            exits = watched(backend)
            await backend.start(harness.failing("web", 3))
            assert await exits.next() == InstanceExited(
                Instance("web", NODE), 1, Exit(3, None, "exit status 3"), requested=False
            )

    async def test_a_kill_from_outside_is_reported_with_its_signal(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            exits = watched(backend)
            handle = await backend.start(harness.steady("web"))
            harness.kill(handle)
            assert await exits.next() == InstanceExited(
                Instance("web", NODE), 1, Exit(None, 9, "killed by SIGKILL"), requested=False
            )

    async def test_starting_what_runs_already_hands_back_what_runs(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            first = await backend.start(harness.steady("web"))
            assert await backend.start(harness.steady("web")) == first

    async def test_two_starts_at_once_start_one(self, harness: Harness) -> None:
        async with harness.backend() as backend, asyncio.TaskGroup() as group:
            one = group.create_task(backend.start(harness.steady("web")))
            other = group.create_task(backend.start(harness.steady("web")))
            assert await one == await other

    async def test_another_generation_is_refused_while_one_runs(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            handle = await backend.start(harness.steady("web", 1))
            with pytest.raises(BackendError, match=r"^web@n1: generation 1 still runs"):
                await backend.start(harness.steady("web", 2))
            assert harness.is_running(handle)

    async def test_what_cannot_start_says_why_and_leaves_nothing(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            exits = watched(backend)
            with pytest.raises(BackendError, match=r"^web@n1: backend\.\w+: "):
                await backend.start(harness.impossible("web"))
            assert await backend.adopt(harness.steady("web")) == Gone()
            assert await backend.stop(Instance("web", NODE), 1.0) is None
            assert exits.seen == []

    async def test_a_start_works_after_one_that_failed(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            with pytest.raises(BackendError):
                await backend.start(harness.impossible("broken"))
            assert harness.is_running(await backend.start(harness.steady("broken", 2)))

    async def test_a_stop_ends_the_instance_and_reports_it_as_requested(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            exits = watched(backend)
            launch = harness.steady("web")
            handle = await backend.start(launch)
            await harness.ready(launch)
            ended = await backend.stop(launch.instance, LONG)
            assert ended == Exit(None, 15, "killed by SIGTERM")
            assert exits.seen == [InstanceExited(launch.instance, 1, ended, requested=True)]
            assert not harness.is_running(handle)

    async def test_stopping_what_does_not_run_is_no_error(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            launch = harness.steady("web")
            assert await backend.stop(launch.instance, 1.0) is None
            await backend.start(launch)
            assert await backend.stop(launch.instance, LONG) is not None
            assert await backend.stop(launch.instance, 1.0) is None

    async def test_what_ignores_its_stop_signal_is_killed_after_the_time_out(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            launch = harness.stubborn("web")
            handle = await backend.start(launch)
            await harness.ready(launch)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            assert await backend.stop(launch.instance, 0.2) == Exit(None, 9, "killed by SIGKILL")
            assert loop.time() - begun >= 0.2
            assert not harness.is_running(handle)

    async def test_a_second_stop_can_shorten_the_first(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            launch = harness.stubborn("web")
            await backend.start(launch)
            await harness.ready(launch)
            async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
                patient = group.create_task(backend.stop(launch.instance, 100 * LONG))
                await asyncio.sleep(0)
                hasty = group.create_task(backend.stop(launch.instance, 0.05))
            assert patient.result() == hasty.result() == Exit(None, 9, "killed by SIGKILL")

    async def test_a_cancelled_stop_can_be_finished_by_another(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            launch = harness.stubborn("web")
            handle = await backend.start(launch)
            await harness.ready(launch)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await backend.stop(launch.instance, 100 * LONG)
            assert await backend.stop(launch.instance, 0.0) == Exit(None, 9, "killed by SIGKILL")
            assert not harness.is_running(handle)

    async def test_a_start_during_a_stop_waits_for_its_end(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            launch = harness.stubborn("web")
            old = await backend.start(launch)
            await harness.ready(launch)
            async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
                group.create_task(backend.stop(launch.instance, 0.1))
                await asyncio.sleep(0.01)
                starting = group.create_task(backend.start(harness.steady("web", 2)))
            assert not harness.is_running(old)
            assert harness.is_running(starting.result())

    async def test_a_service_goes_on_when_its_agent_ends_and_is_adopted_by_the_next(self, harness: Harness) -> None:
        launch = harness.steady("web", 7)
        async with harness.backend() as backend:
            handle = await backend.start(launch)
        assert harness.is_running(handle)
        async with harness.backend() as backend:
            exits = watched(backend)
            assert await backend.adopt(launch) == Running(handle, 7)
            assert await backend.adopt(launch) == Running(handle, 7)
            harness.kill(handle)
            exited = await exits.next()
            assert (exited.instance, exited.generation, exited.requested) == (launch.instance, 7, False)

    async def test_a_start_by_the_next_agent_finds_what_runs_even_without_adoption(self, harness: Harness) -> None:
        launch = harness.steady("web", 7)
        async with harness.backend() as backend:
            handle = await backend.start(launch)
        async with harness.backend() as backend:
            assert await backend.start(launch) == handle

    async def test_an_adopted_instance_stops_like_any_other(self, harness: Harness) -> None:
        launch = harness.steady("web")
        async with harness.backend() as backend:
            handle = await backend.start(launch)
        async with harness.backend() as backend:
            exits = watched(backend)
            await backend.adopt(launch)
            assert await backend.stop(launch.instance, LONG) is not None
            assert [exited.requested for exited in exits.seen] == [True]
            assert not harness.is_running(handle)

    async def test_what_no_longer_belongs_to_the_stack_is_found_and_stopped(self, harness: Harness) -> None:
        launch = harness.steady("removed")
        async with harness.backend() as backend:
            handle = await backend.start(launch)
            await backend.start(harness.steady("stopped"))
            await backend.stop(Instance("stopped", NODE), LONG)
            assert await backend.survivors() == ()
        async with harness.backend() as backend:
            assert await backend.survivors() == (launch.instance,)
            assert await backend.stop(launch.instance, LONG) is not None
            assert not harness.is_running(handle)
            assert await backend.survivors() == ()

    async def test_what_has_ended_can_be_forgotten_and_what_runs_cannot(self, harness: Harness) -> None:
        launch = harness.steady("web")
        async with harness.backend() as backend:
            handle = await backend.start(launch)
            backend.forget(launch.instance)
            assert harness.is_running(handle)
            assert await backend.stop(launch.instance, LONG) is not None
            backend.forget(launch.instance)
        async with harness.backend() as backend:
            assert await backend.adopt(launch) == Gone()
            assert harness.is_running(await backend.start(launch))

    async def test_what_never_ran_is_gone_without_a_trace(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            assert await backend.adopt(harness.steady("web")) == Gone(None, None)

    async def test_how_an_instance_ended_is_known_to_the_next_agent(self, harness: Harness) -> None:
        launch = harness.failing("job", 0)
        async with harness.backend() as backend:
            exits = watched(backend)
            await backend.start(launch)
            await exits.next()
        async with harness.backend() as backend:
            found = await backend.adopt(launch)
            assert found == Gone(1, Exit(0, None, "exit status 0"))
            assert found.exit is not None
            assert found.exit.succeeded

    async def test_what_ended_while_no_agent_looked_is_gone(self, harness: Harness) -> None:
        launch = harness.steady("web", 4)
        async with harness.backend() as backend:
            handle = await backend.start(launch)
        harness.kill(handle)
        await until(lambda: not harness.is_running(handle))
        async with harness.backend() as backend:
            found = await backend.adopt(launch)
            assert isinstance(found, Gone)
            assert found.generation == 4
            assert harness.is_running(await backend.start(harness.steady("web", 5)))

    async def test_what_is_not_proven_ours_is_neither_touched_nor_doubled(self, harness: Harness) -> None:
        launch = harness.steady("web")
        async with harness.backend() as backend:
            handle = await backend.start(launch)
            await harness.ready(launch)
        harness.make_unproven(launch.instance)
        async with harness.backend() as backend:
            found = await backend.adopt(launch)
            assert isinstance(found, Unproven)
            with pytest.raises(BackendError) as refused:
                await backend.start(launch)
            assert str(refused.value) == f"web@n1: {found.reason}"
            with pytest.raises(BackendError, match="web@n1"):
                await backend.stop(launch.instance, 1.0)
            assert harness.is_running(handle)
        harness.kill(handle)

    async def test_a_reload_reaches_a_running_instance(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            launch = harness.steady("web")
            handle = await backend.start(launch)
            await harness.ready(launch)
            await backend.reload(launch.instance)
            await harness.reloads(launch, 1)
            assert harness.is_running(handle)

    async def test_a_reload_of_what_cannot_reload_is_refused(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            launch = harness.irreloadable("web")
            with pytest.raises(BackendError, match=r"^web@n1: it does not run"):
                await backend.reload(launch.instance)
            await backend.start(launch)
            with pytest.raises(
                BackendError, match=r"^web@n1: backend\.(reload(_signal)?: not set|unit: .* has no ExecReload=)"
            ):
                await backend.reload(launch.instance)

    async def test_fifty_instances_start_and_stop_at_once(self, harness: Harness) -> None:
        async with harness.backend() as backend:
            exits = watched(backend)
            launches = [harness.steady(f"web-{number}") for number in range(50)]
            async with asyncio.TaskGroup() as group:
                starting = [group.create_task(backend.start(launch)) for launch in launches]
            handles = [task.result() for task in starting]
            assert len(set(handles)) == 50
            assert all(harness.is_running(handle) for handle in handles)
            async with asyncio.TaskGroup() as group:
                for launch in launches:
                    group.create_task(backend.stop(launch.instance, LONG))
            assert not any(harness.is_running(handle) for handle in handles)
            assert sorted(exited.instance for exited in exits.seen) == sorted(launch.instance for launch in launches)
            assert all(exited.requested for exited in exits.seen)


class ManagedHarness(Harness, Protocol):
    """A machine on which a service manager runs the services."""

    def absence(self) -> AbstractAsyncContextManager[None]:
        """The time for which the manager cannot be spoken to. What runs goes on."""
        ...

    async def start_by_hand(self, launch: Launch) -> None:
        """Start a service as its manager's users do, without citadel."""
        ...

    def is_started(self, launch: Launch) -> bool:
        """Whether what the launch names runs, whoever started it."""
        ...


class ManagedContract(BackendContract):
    """The contract where a service manager has names for what it runs: a name is an identity, and needs no proof."""

    async def test_what_is_not_proven_ours_is_neither_touched_nor_doubled(self, harness: Harness) -> None:
        """What has a name is ours by its name: the record adds the generation, and nothing else hangs on it."""
        launch = harness.steady("web", 3)
        async with harness.backend() as backend:
            handle = await backend.start(launch)
        harness.make_unproven(launch.instance)
        async with harness.backend() as backend:
            assert await backend.adopt(launch) == Running(handle, 3)

    async def test_what_was_started_by_hand_is_taken_over_as_it_is(self, harness: ManagedHarness) -> None:
        launch = harness.steady("web", 5)
        await harness.start_by_hand(launch)
        async with harness.backend() as backend:
            exits = watched(backend)
            handle = await backend.start(launch)
            assert harness.is_running(handle)
            assert await backend.start(launch) == handle
            assert await backend.stop(launch.instance, LONG) is not None
            assert [exited.requested for exited in exits.seen] == [True]
            assert not harness.is_started(launch)

    async def test_a_manager_that_is_away_is_unavailable_and_starts_when_it_is_back(
        self, harness: ManagedHarness
    ) -> None:
        async with harness.backend() as backend:
            await backend.start(harness.steady("early"))
            async with harness.absence():
                with pytest.raises(BackendUnavailable, match=r"^web@n1: "):
                    async with asyncio.timeout(LONG):
                        await backend.start(harness.steady("web"))
            handle = await eventually(lambda: backend.start(harness.steady("web")))
            assert harness.is_running(handle)

    async def test_an_absence_of_the_manager_is_no_end_of_what_it_runs(self, harness: ManagedHarness) -> None:
        async with harness.backend() as backend:
            exits = watched(backend)
            launch = harness.steady("web")
            handle = await backend.start(launch)
            async with harness.absence():
                assert harness.is_running(handle)
            assert await eventually(lambda: backend.start(launch)) == handle
            assert exits.seen == []
            harness.kill(handle)
            assert (await exits.next()).requested is False

    async def test_an_end_during_an_absence_of_the_manager_is_told_afterwards(self, harness: ManagedHarness) -> None:
        async with harness.backend() as backend:
            exits = watched(backend)
            launch = harness.steady("web")
            handle = await backend.start(launch)
            async with harness.absence():
                harness.kill(handle)
                await until(lambda: not harness.is_running(handle))
            exited = await exits.next()
            assert (exited.instance, exited.generation, exited.requested) == (launch.instance, 1, False)
            again = await eventually(lambda: backend.start(harness.steady("web", 2)))
            assert harness.is_running(again)


T = TypeVar("T")


async def eventually(call: Callable[[], Awaitable[T]]) -> T:
    """The answer of a call that is tried again for as long as the manager is unavailable."""
    async with asyncio.timeout(LONG):
        while True:
            try:
                return await call()
            except BackendUnavailable:
                await asyncio.sleep(0.05)
