"""bin/lab as a person calls it, and what it prepares for Vagrant."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from citadel_lab import cli, layout  # type: ignore[import-not-found,unused-ignore]

LAB = Path(__file__).resolve().parents[2] / "bin" / "lab"
PLUGINS = {"docker": None, "virtualbox": "VBoxManage", "libvirt": "virsh"}


def lab(*words: str) -> "subprocess.CompletedProcess[str]":
    # -S -E: no installed package is at hand, as on a fresh machine.
    command = [sys.executable, "-S", "-E", str(LAB), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_help_needs_nothing_but_python_and_shows_examples() -> None:
    done = lab("--help")
    assert done.returncode == 0, done.stderr
    assert "bin/lab partition server-1 --from server-2 server-3" in done.stdout


@pytest.mark.parametrize("words", [("ssh", "nope"), ("partition", "client-1", "--from", "client-1"), ("down", "nope")])
def test_a_wrong_request_exits_with_2_and_says_why(words: tuple[str, ...]) -> None:
    done = lab("--provider", "docker", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("bin/lab: ")
    assert "Traceback" not in done.stderr


def test_every_example_of_the_help_is_understood() -> None:
    parser = cli._parser()
    examples = [line.split("  ") for line in cli.EPILOG.splitlines() if line.startswith("  bin/lab")]
    assert len(examples) >= 10
    for parts in examples:
        command = next(part for part in parts if part)
        parser.parse_args(shlex.split(command)[1:])


def test_status_of_an_absent_lab_shows_its_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MACHINES", tmp_path)
    assert cli.main(["--provider", "docker", "status"]) == 0


def test_status_as_json_is_for_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layout, "MACHINES", tmp_path)
    assert cli.main(["--provider", "docker", "status", "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["machine"] for row in rows] == ["absent"] * 5


def test_faults_on_an_absent_node_say_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layout, "MACHINES", tmp_path)
    assert cli.main(["--provider", "docker", "kill", "server-1"]) == 1
    assert "bin/lab up makes it" in capsys.readouterr().err


def _engine_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("provider", PLUGINS)
@pytest.mark.skipif(shutil.which("vagrant") is None, reason="vagrant is not installed")
def test_vagrant_accepts_the_vagrantfile(provider: str, tmp_path: Path) -> None:
    program = PLUGINS[provider]
    if program is not None and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    environment = {
        **os.environ,
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_CWD": str(layout.HOME),
        "VAGRANT_HOME": str(tmp_path / "home"),
        "VAGRANT_DOTFILE_PATH": str(tmp_path / "dotfile"),
        "VAGRANT_DEFAULT_PROVIDER": provider,
    }
    # Vagrant asks the engine for its version before it looks at the file; where none runs, only the file is judged.
    without_engine = provider == "docker" and not _engine_answers()
    command = ["vagrant", "validate", *(["--ignore-provider"] if without_engine else [])]
    done = subprocess.run(command, env=environment, cwd=layout.HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout
