"""The docker backend, on real containers: the contract, for single containers and for services of compose files."""

from __future__ import annotations

import pytest
from backend_contract import ManagedContract
from docker_fixtures import composed, containers, containers_can_run, proxy, single
from docker_harness import ComposeHarness, ContainerHarness

__all__ = ["composed", "containers", "containers_can_run", "proxy", "single"]


class TestSingleContainers(ManagedContract):
    """The contract, on containers that are there already."""

    @pytest.fixture
    def harness(self, single: ContainerHarness) -> ContainerHarness:
        return single


class TestComposeServices(ManagedContract):
    """The contract, on services of compose files."""

    @pytest.fixture
    def harness(self, composed: ComposeHarness) -> ComposeHarness:
        return composed
