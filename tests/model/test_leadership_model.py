"""The model of leadership is checked with spin, in every order of events; and each rule that is left out is missed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from debian_packages import NotToBeHad, unpacked

MODEL = Path(__file__).with_name("leadership.pml")


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def spin() -> Path:
    """spin: that of the machine, or Debian's package unpacked into the user's cache."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler, which spin's verifiers need")
    try:
        return unpacked("spin").program("spin")
    except NotToBeHad as reason:
        pytest.skip(str(reason))


def errors_found(spin: Path, folder: Path, *options: str) -> tuple[int, str]:
    """How many errors an exhaustive search finds, and its report."""
    shutil.copy2(MODEL, folder / MODEL.name)
    run(spin, *options, "-a", MODEL.name, folder=folder).check_returncode()
    run("cc", "-O2", "-w", "-o", "pan", "pan.c", folder=folder).check_returncode()
    report = run(folder / "pan", "-a", "-f", "-m100000", folder=folder).stdout
    found = re.search(r"errors: (\d+)", report)
    assert found is not None, report
    assert "max search depth too small" not in report
    return int(found[1]), report


def test_no_order_of_events_breaks_leadership_fence_or_resume(spin: Path, tmp_path: Path) -> None:
    errors, report = errors_found(spin, tmp_path)
    assert errors == 0, report
    states = re.search(r"(\d+) states, stored", report)
    assert states is not None
    assert int(states[1]) > 10_000, "the search was no search"


@pytest.mark.parametrize("rule", ["NO_FENCE", "NO_ADOPTION", "NO_GENERATION"])
def test_a_rule_that_is_left_out_is_missed(spin: Path, tmp_path: Path, rule: str) -> None:
    errors, report = errors_found(spin, tmp_path, f"-D{rule}")
    assert errors > 0, report
    assert "assertion violated" in report
