"""These tests use the model of the world that the tests of ``core`` have, and the real one of ``system``."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))

from consul_process import ConsulProcess
from real_world import World


@pytest.fixture
def real(consul_server: ConsulProcess, role_environment: dict[str, str], tmp_path: Path) -> Iterator[World]:
    """A stack of the test's own; its processes and services end with it."""
    with World(consul_server.address, tmp_path, f"d{uuid.uuid4().hex[:8]}", role_environment) as made:
        yield made
