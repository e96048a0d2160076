"""Handing back is tested in the model of the world that the tests of ``core`` have, and with real processes."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from consul_process import ConsulProcess
from real_world import World

sys.path.insert(0, str(Path(__file__).parent.parent / "core"))


@pytest.fixture
def real(consul_server: ConsulProcess, role_environment: dict[str, str], tmp_path: Path) -> Iterator[World]:
    """A stack of the test's own with real processes, which end with it."""
    with World(consul_server.address, tmp_path, f"t{uuid.uuid4().hex[:8]}", role_environment) as made:
        yield made
