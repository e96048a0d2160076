"""The fake keeps the contract, so what is tested over it is tested over any backend."""

from __future__ import annotations

import pytest
from backend_contract import NODE, STACK, BackendContract

from citadel_consul.backends.base import Backend, Handle, Launch
from citadel_consul.backends.fake import Behaviour, FakeBackend, FakeMachine
from citadel_consul.core.model import Instance, ProcessBackend
from citadel_consul.errors import BackendError, BackendUnavailable


class FakeHarness:
    """See ``backend_contract.Harness``."""

    def __init__(self) -> None:
        self.machine = FakeMachine()

    def backend(self) -> Backend:
        return FakeBackend(self.machine)

    def steady(self, service: str, generation: int = 1) -> Launch:
        return self._launch(service, Behaviour(), generation)

    def stubborn(self, service: str) -> Launch:
        return self._launch(service, Behaviour(ignores_stop=True))

    def failing(self, service: str, status: int) -> Launch:
        return self._launch(service, Behaviour(exits_with=status))

    def impossible(self, service: str) -> Launch:
        error = BackendError(f"{service}@{NODE}: backend.command: there is no program 'nonesuch'")
        return self._launch(service, Behaviour(start_error=error))

    def irreloadable(self, service: str) -> Launch:
        return self._launch(service, Behaviour(), reload_signal=None)

    async def ready(self, launch: Launch) -> None:
        assert launch.instance in self.machine.running()

    async def reloads(self, launch: Launch, count: int) -> None:
        assert self.machine.history.count(("reload", launch.instance, launch.generation)) == count

    def kill(self, handle: Handle) -> None:
        for instance in [instance for instance, running in self.machine.running().items() if running == handle]:
            self.machine.end(instance)

    def is_running(self, handle: Handle) -> bool:
        return handle in self.machine.running().values()

    def make_unproven(self, instance: Instance) -> None:
        self.machine.unproven[instance] = f"something runs that may be {instance}"

    def _launch(
        self, service: str, behaviour: Behaviour, generation: int = 1, reload_signal: str | None = "SIGHUP"
    ) -> Launch:
        self.machine.behaviours[service] = behaviour
        spec = ProcessBackend(("true",), reload_signal=reload_signal)
        return Launch(STACK, Instance(service, NODE), generation, spec, 1.0)


class TestFakeBackend(BackendContract):
    @pytest.fixture
    def harness(self) -> FakeHarness:
        return FakeHarness()


async def test_the_history_tells_what_happened_in_order() -> None:
    harness = FakeHarness()
    launch = harness.steady("web", 3)
    async with harness.backend() as backend:
        await backend.start(launch)
        await backend.reload(launch.instance)
        await backend.stop(launch.instance, 1.0)
    assert [(what, generation) for what, _, generation in harness.machine.history] == [
        ("start", 3),
        ("reload", 3),
        ("stop", 3),
        ("exit", 3),
    ]


async def test_a_temporary_error_can_be_injected() -> None:
    harness = FakeHarness()
    launch = harness.steady("web")
    harness.machine.behaviours["web"] = Behaviour(start_error=BackendUnavailable("no memory"))
    async with harness.backend() as backend:
        with pytest.raises(BackendUnavailable):
            await backend.start(launch)
        harness.machine.behaviours.clear()
        await backend.start(launch)
        assert launch.instance in harness.machine.running()
