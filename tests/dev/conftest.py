"""A ``citadel dev`` for each test, whose whole family ends with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tiny services, and who judges their history, live with the tests of the whole system.
sys.path.append(str(Path(__file__).resolve().parents[1] / "system"))

from dev_process import Site

from citadel_consul.consul.binary import ConsulBinary


@pytest.fixture
def site(consul_binary: ConsulBinary, role_environment: dict[str, str], tmp_path: Path) -> Iterator[Site]:
    """A stack file of tiny services, and the runs of ``citadel dev`` on it."""
    environ = {**role_environment, "CITADEL_CONSUL_BINARY": str(consul_binary.path)}
    with Site(tmp_path, environ) as made:
        yield made
