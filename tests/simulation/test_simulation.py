"""A few hundred stories of the simulation, and that it would notice if something were wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("simulate.py")
SEEDS = 200
ENOUGH_SECONDS = 500

UNFENCED = """
import citadel_consul.orchestrator.fence as fence
from citadel_consul.consul.transaction import check_not_exists
fence.check_session = lambda key, session: check_not_exists("citadel/nobody")
"""


def simulate(*arguments: str, planted: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program; ``planted`` is carried out in each of its processes before anything else."""
    # Measuring what it runs takes several times as long as running it.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "COV_CORE_"))}
    environ["PYTHONHASHSEED"] = "0"
    if folder is not None:
        (folder / "sitecustomize.py").write_text(planted)
        environ["PYTHONPATH"] = str(folder)
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=ENOUGH_SECONDS,
        check=False,
    )


def test_no_story_of_the_first_seeds_violates_an_invariant() -> None:
    done = simulate("--seeds", str(SEEDS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS} seeds from 1: 0 failed" in done.stdout
    assert not done.stderr, done.stderr  # an exception that nobody looked at is printed there


def test_a_seed_tells_the_same_story_each_time_and_whatever_was_told_before() -> None:
    first, second = simulate("--tell", "7"), simulate("--tell", "7", "--after", "5")
    assert first.stdout == second.stdout
    assert first.stdout.count("\n") > 10


@pytest.mark.parametrize("planted", [UNFENCED], ids=["fence removed"])
def test_a_planted_bug_is_told_with_its_timeline(planted: str, tmp_path: Path) -> None:
    done = simulate("--seeds", "20", planted=planted, folder=tmp_path)
    assert done.returncode == 1
    assert "VIOLATION I3" in done.stdout
