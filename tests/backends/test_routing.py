"""Each instance goes to the backend of its kind, whatever the others do and whatever the spec said before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from backend_contract import LONG, NODE, STACK, BackendContract, watched
from process_harness import ProcessHarness

from citadel_consul.backends.base import Adopted, Backend, Exit, Gone, Handle, Launch, Notice, Running
from citadel_consul.backends.fake import Behaviour, FakeBackend, FakeMachine
from citadel_consul.backends.launches import Launches, LaunchRecord
from citadel_consul.backends.routing import RoutingBackend
from citadel_consul.core import model
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError, BackendUnavailable

WEB = Instance("web", NODE)
UNIT, PROCESS = model.SystemdBackend("web.service"), model.ProcessBackend(("web",))


class RoutingHarness(ProcessHarness):
    def backend(self, tend_seconds: float = 1.0) -> Backend:  # noqa: ARG002 - it is the process harness's
        return RoutingBackend(self.state_dir, STACK)


class TestRoutingBackend(BackendContract):
    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[RoutingHarness]:
        harness = RoutingHarness(tmp_path)
        yield harness
        async with harness.backend() as backend:
            for instance in await backend.survivors():
                await backend.stop(instance, 0.0)
        assert harness.all_marked() == []


class Manager(FakeBackend):
    """A backend over a machine of its own that keeps records, as those of service managers do."""

    def __init__(self, machine: FakeMachine, launches: Launches, refusal: Callable[[], Exception | None]) -> None:
        super().__init__(machine)
        self._launches = launches
        self._refusal = refusal

    async def __aenter__(self) -> Self:
        refusal = self._refusal()
        if refusal is not None:
            raise refusal
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)

    async def start(self, launch: Launch) -> Handle:
        handle = await super().start(launch)
        self._launches.write(launch.instance, LaunchRecord(launch.generation, launch.backend, handle))
        return handle

    async def adopt(self, launch: Launch) -> Adopted:
        found = await super().adopt(launch)
        record = self._launches.read(launch.instance)
        if isinstance(found, Gone) and record is not None:
            self._launches.write(launch.instance, replace(record, exit=found.exit or Exit.unknown("gone")))
        return found

    async def stop(self, instance: Instance, timeout_seconds: float) -> Exit | None:
        ended = await super().stop(instance, timeout_seconds)
        record = self._launches.read(instance)
        if ended is not None and record is not None:
            self._launches.write(instance, replace(record, exit=ended))
        return ended


class Node:
    """A node with a process backend and one for units; ``refusals`` are raised, one after the other, by entering it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machines = {"process": FakeMachine(), "systemd": FakeMachine()}
        self.refusals: list[Exception] = []
        self.made: list[str] = []

    def backend(self) -> RoutingBackend:
        def systemd(state_dir: Path, stack: str) -> Backend:
            self.made.append("systemd")
            launches = Launches(state_dir, stack, "systemd")
            return Manager(self.machines["systemd"], launches, lambda: self.refusals.pop(0) if self.refusals else None)

        def process(_state_dir: Path, _stack: str) -> Backend:
            self.made.append("process")
            return FakeBackend(self.machines["process"])

        return RoutingBackend(self.folder, STACK, {"process": process, "systemd": systemd})


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def launch(spec: model.Backend, generation: int = 1, instance: Instance = WEB) -> Launch:
    return Launch(STACK, instance, generation, spec, 1.0)


async def test_a_kind_is_made_when_it_is_first_needed_and_once(node: Node) -> None:
    async with node.backend() as backend:
        assert node.made == []
        await backend.start(launch(PROCESS))
        await backend.stop(WEB, LONG)
        assert await backend.survivors() == ()
        assert node.made == ["process"]
        await backend.start(launch(UNIT, 2))
        await backend.start(launch(UNIT, instance=Instance("api", NODE)))
        assert node.made == ["process", "systemd"]


async def test_a_kind_that_is_not_there_harms_no_other_and_is_tried_again(node: Node) -> None:
    node.refusals = [BackendUnavailable("no bus"), BackendUnavailable("no bus yet")]
    async with node.backend() as backend:
        for text in ("no bus", "no bus yet"):
            with pytest.raises(BackendUnavailable, match=f"^{text}$"):
                await backend.start(launch(UNIT))
            await backend.start(launch(PROCESS, instance=Instance(text.replace(" ", "-"), NODE)))
        assert await backend.start(launch(UNIT)) in node.machines["systemd"].running().values()


async def test_a_kind_that_this_citadel_does_not_have_is_refused_by_its_field(node: Node) -> None:
    async with node.backend() as backend:
        with pytest.raises(BackendError, match=r"^web@n1: backend\.kind: this citadel runs no 'docker', only process"):
            await backend.start(launch(model.DockerBackend(container="web")))


async def test_a_kind_that_breaks_down_ends_the_whole(node: Node) -> None:
    node.refusals = [ValueError("a fault of ours")]
    with pytest.raises(ExceptionGroup) as caught:
        async with node.backend() as backend:
            await backend.start(launch(UNIT))
    assert caught.group_contains(ValueError, match="a fault of ours")


@pytest.mark.parametrize(("before", "after"), [(UNIT, PROCESS), (PROCESS, UNIT)])
async def test_what_runs_is_stopped_by_who_started_it_when_its_kind_has_changed(
    node: Node, before: model.Backend, after: model.Backend
) -> None:
    async with node.backend() as backend:
        await backend.start(launch(before))
        assert await backend.start(launch(after)) in node.machines[before.kind].running().values()
        with pytest.raises(BackendError, match=r"^web@n1: generation 1 still runs"):
            await backend.start(launch(after, 2))
        assert await backend.stop(WEB, LONG) is not None
        await backend.start(launch(after, 2))
        assert node.machines[before.kind].running() == {}
        assert list(node.machines[after.kind].running()) == [WEB]


@pytest.mark.parametrize(("before", "after"), [(UNIT, PROCESS), (PROCESS, UNIT)])
async def test_the_next_agent_finds_what_an_earlier_spec_has_left(
    node: Node, before: model.Backend, after: model.Backend
) -> None:
    async with node.backend() as backend:
        handle = await backend.start(launch(before, 3))
    async with node.backend() as backend:
        exits = watched(backend)
        assert await backend.survivors() == (WEB,)
        assert await backend.adopt(launch(after, 3)) == Running(handle, 3)
        assert await backend.stop(WEB, LONG) is not None
        assert [exited.requested for exited in exits.seen] == [True]
        await backend.start(launch(after, 4))
        assert list(node.machines[after.kind].running()) == [WEB]


async def test_the_last_of_two_kinds_tells_how_an_instance_ended(node: Node) -> None:
    async with node.backend() as backend:
        await backend.start(launch(UNIT, 1))
        await backend.stop(WEB, LONG)
        await backend.start(launch(PROCESS, 2))
        node.machines["process"].end(WEB, Exit.with_status(7))
    async with node.backend() as backend:
        assert await backend.adopt(launch(UNIT, 2)) == Gone(2, Exit.with_status(7))


async def test_what_may_run_of_a_kind_that_is_not_there_counts_as_surviving(node: Node) -> None:
    api = Instance("api", NODE)
    async with node.backend() as backend:
        await backend.start(launch(UNIT))
        await backend.start(launch(PROCESS, instance=api))
    node.refusals = [BackendUnavailable("no bus")]
    async with node.backend() as backend:
        assert await backend.survivors() == (api, WEB)


async def test_a_stop_reaches_all_even_if_one_is_not_there(node: Node) -> None:
    async with node.backend() as backend:
        await backend.start(launch(PROCESS))
    Launches(node.folder, STACK, "systemd").write(WEB, LaunchRecord(1, UNIT))
    node.refusals = [BackendUnavailable("no bus")]
    async with node.backend() as backend:
        with pytest.raises(BackendUnavailable, match="no bus"):
            await backend.stop(WEB, LONG)
        assert node.machines["process"].running() == {}


async def test_ends_and_notices_of_every_kind_are_told(node: Node) -> None:
    node.machines["systemd"].behaviours["web"] = Behaviour(notice="it restarts itself")
    api = Instance("api", NODE)
    async with node.backend() as backend:
        notices: list[Notice] = []
        backend.set_notice_sink(notices.append)
        await backend.start(launch(UNIT))
        exits = watched(backend)  # also of a kind that was made before somebody listened
        await backend.start(launch(PROCESS, instance=api))
        node.machines["systemd"].end(WEB)
        node.machines["process"].end(api)
        assert [exited.instance for exited in exits.seen] == [WEB, api]
        assert notices == [Notice(WEB, "it restarts itself")]


async def test_a_reload_goes_to_who_runs_it(node: Node) -> None:
    spec = replace(PROCESS, reload_signal="SIGHUP")
    async with node.backend() as backend:
        await backend.start(launch(spec))
        await backend.reload(WEB)
        assert node.machines["process"].history[-1] == ("reload", WEB, 1)
        with pytest.raises(BackendError, match="it does not run"):
            await backend.reload(Instance("api", NODE))
