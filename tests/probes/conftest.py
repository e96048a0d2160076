"""A stack of real processes, for what is measured across a network."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from consul_process import ConsulProcess
from real_world import World


@pytest.fixture
def real(consul_server: ConsulProcess, role_environment: dict[str, str], tmp_path: Path) -> Iterator[World]:
    """A stack of the test's own on a real Consul; its processes and services end with it."""
    with World(consul_server.address, tmp_path, f"t{uuid.uuid4().hex[:8]}", role_environment) as made:
        yield made
