"""The systemd backend over a real systemd: the contract, and what only units do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from backend_contract import ManagedContract
from managed_machine import Machine
from systemd_harness import SystemdHarness


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> Machine:
    SystemdHarness.prepare(machine)
    return machine


@pytest.fixture
def harness(prepared: Machine, tmp_path: Path) -> Iterator[SystemdHarness]:
    harness = SystemdHarness(prepared, tmp_path)
    yield harness
    harness.clear()


class TestSystemdBackend(ManagedContract):
    pass
