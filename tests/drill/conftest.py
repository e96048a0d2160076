"""A small stack for each drill, with real processes."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

# The harness of real processes lives with other tests.
sys.path += [str(Path(__file__).resolve().parents[1] / folder) for folder in ("system", "dev", "examples")]

from consul_process import ConsulProcess
from drill_stack import DrilledWorld


@pytest.fixture
def world(consul_server: ConsulProcess, role_environment: dict[str, str], tmp_path: Path) -> Iterator[DrilledWorld]:
    """A stack of the test's own; its processes and services end with it."""
    with DrilledWorld(consul_server.address, tmp_path, f"t{uuid.uuid4().hex[:8]}", role_environment) as made:
        yield made
