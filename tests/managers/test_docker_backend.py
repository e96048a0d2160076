"""The docker backend, on real containers: the contract, for single containers and for services of compose files."""

from __future__ import annotations

import pytest
from backend_contract import LONG, BackendContract, Harness
from docker_fixtures import composed, containers, containers_can_run, single
from docker_harness import ComposeHarness, ContainerHarness

from citadel_consul.backends.base import Notice, Running

__all__ = ["composed", "containers", "containers_can_run", "single"]


class TestSingleContainers(BackendContract):
    """The contract, on containers that are there already."""

    @pytest.fixture
    def harness(self, single: ContainerHarness) -> ContainerHarness:
        return single

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
    def harness(self, composed: ComposeHarness) -> ComposeHarness:
        return composed
