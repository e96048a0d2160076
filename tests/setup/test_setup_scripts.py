"""bin/setup, bin/test and .ci/run, on a small project: what they do, do again, and say when they cannot."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "tiny"
version = "{version}"
[project.optional-dependencies]
test = []
examples = []
[tool.hatch.build.targets.wheel]
packages = ["tiny"]
"""


@dataclass(frozen=True)
class Clone:
    """A fresh clone of a project that depends on nothing."""

    root: Path

    def __post_init__(self) -> None:
        shutil.copytree(ROOT / "bin", self.root / "bin")
        (self.root / "tiny").mkdir()
        (self.root / "tiny/__init__.py").touch()
        self.write_project("1.0")

    def write_project(self, version: str) -> None:
        (self.root / "pyproject.toml").write_text(PROJECT.format(version=version))

    def setup(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run([str(self.root / "bin/setup"), *arguments], **variables)

    @property
    def stamp(self) -> dict[str, object]:
        stamp: dict[str, object] = json.loads((self.root / ".venv/citadel-setup.json").read_text())
        return stamp


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def write_script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    (tmp_path / "clone").mkdir()
    return Clone(tmp_path / "clone")


@pytest.mark.long
def test_setup_makes_an_environment_once_and_again_only_for_a_reason(clone: Clone, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    first = clone.setup("examples", HOME=str(home))
    assert first.returncode == 0, first.stderr
    assert "making .venv with Python" in first.stderr
    assert clone.stamp["extras"] == ["examples"]

    again = clone.setup("examples")
    assert (again.returncode, again.stderr) == (0, "bin/setup: .venv is up to date\n")
    assert clone.setup("examples", "--quiet").stderr == ""

    more = clone.setup("test")
    assert "installing citadel [examples, test]" in more.stderr
    assert "making .venv" not in more.stderr

    clone.write_project("2.0")
    failed = clone.setup("examples", PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert failed.returncode == 1
    assert "pip failed, see above" in failed.stderr
    assert "installing citadel [examples]" in clone.setup("examples").stderr
    show = run([str(clone.root / ".venv/bin/python"), "-m", "pip", "show", "tiny"])
    assert "Version: 2.0" in show.stdout

    moved = clone.root.rename(tmp_path / "moved")
    remade = run([str(moved / "bin/setup"), "examples"], PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert "making .venv with Python" in remade.stderr


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('[[3, 9, 2], ["ensurepip"]]', "is Python 3.9.2"),
        ("[[3, 12, 0], []]", "has neither ensurepip (package python3-venv) nor virtualenv"),
        ("Segmentation fault", "does not run"),
    ],
)
def test_a_python_that_will_not_do_is_told_with_what_to_install(
    clone: Clone, tmp_path: Path, answer: str, reason: str
) -> None:
    python = write_script(tmp_path / "python3", f"echo '{answer}'")
    done = clone.setup(CITADEL_PYTHON=str(python))
    assert done.returncode == 1
    assert f"{python}: {reason}" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr
    assert not (clone.root / ".venv").exists()


def test_without_ensurepip_virtualenv_makes_the_environment(clone: Clone, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    script = f'[ "$1" = -c ] && echo \'[[3, 12, 0], ["virtualenv"]]\' && exit\necho "$@" >> {calls}; exit 7'
    done = clone.setup(CITADEL_PYTHON=str(write_script(tmp_path / "python3", script)))
    assert done.returncode == 1
    assert "-m virtualenv` failed, see above" in done.stderr
    assert calls.read_text() == f"-m virtualenv --clear {clone.root / '.venv'}\n"


def stub_tools(clone: Clone, **statuses: int) -> None:
    """Tools in the clone's environment that say their name and end with the status given, or with 0."""
    write_script(clone.root / "bin/setup", "exit 0")
    for name in ("ruff", "mypy", "lint-imports"):
        status = statuses.get(name.replace("-", "_"), 0)
        write_script(clone.root / ".venv/bin" / name, f'echo "{name} $*"; exit {status}')
    tests = statuses.get("pytest", 0)
    write_script(clone.root / ".venv/bin/python", f'echo "python $*"; echo "=== 3 passed in 0.1s ==="; exit {tests}')


def test_test_checks_everything_and_ends_with_the_line_and_status_of_pytest(clone: Clone) -> None:
    stub_tools(clone, pytest=5)
    done = run([str(clone.root / "bin/test"), "-k", "lease"])
    lines = done.stdout.splitlines()
    assert [line.split("  ")[0].strip() for line in lines[:4]] == [
        "ruff check",
        "ruff format",
        "mypy --strict",
        "lint-imports",
    ]
    assert lines[-2] == "python -m pytest --cov --cov-report=term:skip-covered -k lease"
    assert lines[-1] == "=== 3 passed in 0.1s ==="
    assert done.returncode == 5


@pytest.mark.parametrize("tool", ["ruff", "mypy", "lint_imports"])
def test_test_runs_no_tests_and_says_why_when_a_check_fails(clone: Clone, tool: str) -> None:
    stub_tools(clone, **{tool: 1})
    done = run([str(clone.root / "bin/test")])
    assert done.returncode == 1
    assert f"{tool.replace('_', '-')} " in done.stdout
    assert "passed" not in done.stdout
    assert "(no tests were run)" in done.stderr


def test_test_checks_each_conftest_alone(clone: Clone) -> None:
    stub_tools(clone)
    for area in ("agent", "api"):
        (clone.root / "tests" / area).mkdir(parents=True)
        (clone.root / "tests" / area / "conftest.py").touch()
    write_script(clone.root / ".venv/bin/mypy", 'case "$*" in *api/conftest.py) echo "bad $*"; exit 1;; esac')
    done = run([str(clone.root / "bin/test")])
    assert "bad --strict" in done.stdout
    assert done.returncode == 1


STAGES = ("test", "simulate", "faults", "managers")


def with_ci(clone: Clone, **scripts: str) -> None:
    """A clone with CI and every command that it runs; each says what it was called with."""
    shutil.copytree(ROOT / ".ci", clone.root / ".ci")
    for name in STAGES:
        write_script(clone.root / "bin" / name, f'read line && exit 99; echo "{name} $*"; {scripts.get(name, "")}')


def stages_told(output: str) -> list[str]:
    return [line for line in output.splitlines() if not line.startswith(".ci/run:")]


def test_ci_runs_every_suite(clone: Clone) -> None:
    with_ci(clone)
    done = run([str(clone.root / ".ci/run")], CI="true")
    assert done.returncode == 0
    assert [line.split()[0] for line in stages_told(done.stdout)] == ["test", *STAGES]


@pytest.mark.parametrize("status", [1, 5])
def test_ci_runs_what_failed_once_more_and_ends_as_that_does(clone: Clone, status: int) -> None:
    with_ci(clone, faults=f"exit {status}")
    done = run([str(clone.root / ".ci/run")], CI="true")
    assert done.returncode == status
    assert stages_told(done.stdout)[-2:] == ["faults ", "faults --last-failed"]


def test_ci_says_so_if_something_passes_only_the_second_time(clone: Clone) -> None:
    with_ci(clone, test='case "$*" in *last-failed*) ;; *) exit 1;; esac')
    done = run([str(clone.root / ".ci/run")], CI="true")
    assert done.returncode == 0
    assert "./bin/test passed at its second attempt" in done.stdout


def test_ci_hands_its_arguments_to_the_quick_suite_and_does_no_more(clone: Clone) -> None:
    with_ci(clone, test="exit 3")
    done = run([str(clone.root / ".ci/run"), "-k", "lease"], CI="true")
    assert done.returncode == 3
    assert done.stdout == "test -k lease\n"


def test_quickstart_hands_its_arguments_to_dev_with_the_example_stack(clone: Clone) -> None:
    write_script(clone.root / "bin/setup", 'echo "setup $*"')
    write_script(clone.root / ".venv/bin/citadel", 'echo "citadel $*"; exit 4')
    done = run([str(clone.root / "bin/quickstart"), "--once"])
    stack = clone.root / "examples/ai-platform/stack.yaml"
    assert done.stdout == f"setup --quiet examples\ncitadel dev {stack} --once\n"
    assert done.returncode == 4


def test_the_scripts_are_executable_and_find_python_by_themselves() -> None:
    for name in ("setup", "test", "quickstart", "consul"):
        script = ROOT / "bin" / name
        assert script.stat().st_mode & stat.S_IXUSR
        assert script.read_text().startswith("#!/usr/bin/env python3\n")
    assert (ROOT / ".ci/run").stat().st_mode & stat.S_IXUSR
    assert sys.version_info >= (3, 11)
