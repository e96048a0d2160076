"""A short soak of citadel with a leak in it: the run names what grows, and fails."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from planted_bug import planted

pytestmark = [pytest.mark.consul, pytest.mark.long]

SOAK = Path(__file__).with_name("soak.py")
LASTING = ("orchestrator n1", "orchestrator n2", "agent n1", "agent n2")
BEAT = "        now = self._clock()\n        self._doubted |="
KEPT = "(open('/dev/null'), asyncio.ensure_future(asyncio.sleep(3600)))"
LEAK = ("consul/lease.py", BEAT, f"        self.__dict__.setdefault('kept', []).append({KEPT})\n{BEAT}")
"""A descriptor and a task for each sign of life that is given."""


def wrong_in_a_short_soak(tmp_path: Path, environ: Mapping[str, str]) -> Mapping[str, str]:
    """What half a minute finds, by measure."""
    report = tmp_path / "soak.json"
    command = [sys.executable, str(SOAK), "--minutes", "0.5", "--every", "1", "--settle", "2", "--seed", "leak"]
    done = subprocess.run(
        [*command, "--json", str(report)], env=environ, capture_output=True, text=True, check=False, timeout=600
    )
    assert report.exists(), done.stdout + done.stderr
    wrong: Mapping[str, str] = json.loads(report.read_text())["wrong"]
    assert done.returncode == len(wrong), done.stdout
    return wrong


def test_a_planted_leak_of_tasks_and_descriptors_is_named(tmp_path: Path, role_environment: dict[str, str]) -> None:
    leaking = {**role_environment, **planted(tmp_path / "planted", *LEAK)}
    wrong = wrong_in_a_short_soak(tmp_path, leaking)
    for who in LASTING:
        assert "left over" in wrong[f"{who}: tasks"]
        assert "left over" in wrong[f"{who}: files"]
    assert any("grows" in wrong[f"{who}: files"] for who in LASTING)


def test_without_it_none_of_that_is_said(tmp_path: Path, role_environment: dict[str, str]) -> None:
    """Half a minute is too short for more: a task more at the moment of a sample is no leak, and can look like one."""
    wrong = wrong_in_a_short_soak(tmp_path, role_environment)
    assert not [who for who in LASTING if f"{who}: tasks" in wrong and f"{who}: files" in wrong]
