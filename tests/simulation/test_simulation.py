"""A few hundred stories of the simulation, and that it would notice if something were wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("simulate.py")
SEEDS = 200
EVERY = 300
"""Scenes are disturbed at each of so many await points; `bin/simulate` does so at every one."""
ENOUGH_SECONDS = 1500

HOLDS_IGNORED = """
import citadel_consul.core.healing.ward as ward
ward.Ward.is_held = lambda self, instance: False
"""
BUDGET_IGNORED = """
from dataclasses import replace
from citadel_consul.orchestrator.backoff import Backoffs
told = Backoffs.of
Backoffs.of = lambda *given: {name: replace(said, exhausted=False) for name, said in told(*given).items()}
"""
BRAKE_IGNORED = """
import citadel_consul.core.healing.heal as heal
brakes = heal.brakes
heal.brakes = lambda ward: brakes(ward) and False
"""
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
    done = simulate("--seeds", str(SEEDS), "--every", str(EVERY))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"{SEEDS} seeds from 1 and \d{{2,}} disturbed scenes: 0 failed", done.stdout)
    assert not done.stderr, done.stderr  # an exception that nobody looked at is printed there


@pytest.mark.parametrize("story", ["7", "failover:standby:cut-at:60"])
def test_a_story_is_the_same_each_time_and_whatever_was_told_before(story: str) -> None:
    first, second = simulate("--tell", story), simulate("--tell", story, "--after", "5")
    assert first.stdout == second.stdout
    assert first.stdout.count("\n") > 10


def test_a_planted_bug_is_told_with_its_timeline(tmp_path: Path) -> None:
    done = simulate("--seeds", "20", "--every", "0", planted=UNFENCED, folder=tmp_path)
    assert done.returncode == 1
    assert "VIOLATION I3" in done.stdout


@pytest.mark.parametrize(
    ("planted", "invariant"),
    [
        pytest.param(HOLDS_IGNORED, "I6", id="a hold is no reason to wait"),
        pytest.param(BUDGET_IGNORED, "I5", id="a budget is never used up"),
        pytest.param(BRAKE_IGNORED, "I5", id="the brake holds nothing back"),
    ],
)
def test_what_recovery_must_not_do_is_seen(planted: str, invariant: str, tmp_path: Path) -> None:
    done = simulate("--seeds", "200", "--first-failure", planted=planted, folder=tmp_path)
    assert done.returncode == 1
    assert f": {invariant}: " in done.stdout
