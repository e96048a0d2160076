"""The docker backend, on real containers: the contract, for single containers and for services of compose files."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import docker_engine
import pytest
from backend_contract import LONG, BackendContract, Harness
from docker_engine import Containers
from docker_harness import ComposeHarness, ContainerHarness

from citadel_consul.backends.base import Notice, Running


@pytest.fixture(scope="session")
def containers_can_run() -> None:
    """Skip, visibly, where no engine answers or the kernel forbids containers."""
    with docker_engine.client() as engine:
        reason = docker_engine.why_not(engine)
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def containers(containers_can_run: None) -> Iterator[Containers]:
    """The machine's engine."""
    with docker_engine.client() as engine:
        yield Containers(engine, secrets.token_hex(4))


class TestSingleContainers(BackendContract):
    """The contract, on containers that are there already."""

    @pytest.fixture
    def harness(self, containers: Containers, tmp_path: Path) -> Iterator[ContainerHarness]:
        harness = ContainerHarness(tmp_path, containers)
        yield harness
        harness.clear()

    async def test_what_is_not_proven_ours_is_neither_touched_nor_doubled(self, harness: Harness) -> None:
        """A container that is named is proven by its name, so there is another rule in place of the contract's."""
        assert isinstance(harness, ContainerHarness)
        launch = harness.steady("web", 4)
        harness.containers.start(harness.name(launch))
        async with harness.backend() as backend:
            notices: list[Notice] = []
            backend.set_notice_sink(notices.append)
            found = await backend.adopt(launch)
            assert isinstance(found, Running)
            assert found.generation == 4
            assert await backend.start(launch) == found.handle
            assert [notice.message for notice in notices] == [
                f"{harness.name(launch)} ran already, and citadel had not started it: taken over as it is"
            ]
            assert await backend.stop(launch.instance, LONG) is not None
            assert not harness.is_running(found.handle)


class TestComposeServices(BackendContract):
    """The contract, on services of compose files."""

    @pytest.fixture
    def harness(self, containers: Containers, tmp_path: Path) -> Iterator[ComposeHarness]:
        harness = ComposeHarness(tmp_path, containers)
        yield harness
        harness.clear()
