"""A machine whose cores are all busy for a minute: slow is not dead, so the leader stays, at the default settings."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from roles import Crew

pytestmark = [pytest.mark.consul, pytest.mark.slow]

STARVED_SECONDS = 60.0


@pytest.fixture
def burners() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes for each core that do nothing but use it."""
    command = [sys.executable, "-S", "-E", "-c", "while True: pass"]
    made = [subprocess.Popen(command) for _ in range(2 * (os.cpu_count() or 2))]
    yield made
    for burner in made:
        burner.kill()
        burner.wait()


def test_a_machine_starved_for_a_minute_does_not_depose_its_leader(
    crew: Crew, burners: list[subprocess.Popen[bytes]]
) -> None:
    world = crew.world
    for number in range(1, 4):
        crew.orchestrator(f"o{number}")
    crew.until_manned()
    epoch = world.until_led()["epoch"]
    deadline = time.monotonic() + STARVED_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.5)
        assert all(burner.poll() is None for burner in burners)
        leader = world.leader()
        assert leader is not None, world.logs()
        assert leader["epoch"] == epoch, world.logs()
