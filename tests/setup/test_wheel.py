"""The wheel, installed into an empty environment and used from another folder, as a user gets it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "ai-platform"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Installation:
    """An environment that holds the wheel and what it depends on, and a folder of a user's own."""

    wheel: Path
    environment: Path
    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": os.defpath, "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}
        command = [str(self.environment / "bin" / arguments[0]), *arguments[1:]]
        return subprocess.run(
            command, cwd=self.folder, env=variables, capture_output=True, text=True, timeout=120, check=False
        )

    def citadel(self, *arguments: str) -> str:
        """What the command prints; it has to succeed."""
        done = self.run("citadel", *arguments)
        assert done.returncode == 0, f"citadel {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    dist, folder = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("user")
    # Without --wheel the wheel is made from the source distribution, so that one is proven complete as well.
    _run([sys.executable, "-m", "build", "--outdir", str(dist), str(ROOT)], folder)
    (wheel,) = dist.glob("*.whl")
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    _run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-input", str(wheel)], folder)
    shutil.copytree(EXAMPLE, folder / "platform")
    return Installation(wheel, environment, folder)


def _run(command: list[str], folder: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def test_it_holds_every_template_and_every_consul_configuration_and_no_tests(installation: Installation) -> None:
    with zipfile.ZipFile(installation.wheel) as wheel:
        names = set(wheel.namelist())
    shipped = {
        f"citadel_consul/_data/{path.relative_to(ROOT)}"
        for directory in ("templates", "consul.d")
        for path in (ROOT / directory).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert len(shipped) > 5
    assert shipped <= names
    assert {name.split("/")[0] for name in names} == {"citadel_consul", f"{_distribution(installation)}.dist-info"}


def _distribution(installation: Installation) -> str:
    return "-".join(installation.wheel.name.split("-")[:2])


def test_its_files_are_found_where_it_is_installed_and_not_in_the_source_tree(installation: Installation) -> None:
    program = "from citadel_consul.rendering.resources import shipped; print(shipped('templates'), shipped('consul.d'))"
    done = installation.run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    for path in done.stdout.split():
        assert Path(path).is_relative_to(installation.environment)
        assert Path(path).is_dir()


def test_help_names_the_commands(installation: Installation) -> None:
    text = installation.citadel("--help")
    for command in ("up", "down", "status", "apply", "validate", "render", "orchestrator", "agent", "dev"):
        assert f" {command} " in text


def test_version_is_that_of_the_wheel(installation: Installation) -> None:
    assert installation.wheel.name.split("-")[1] in installation.citadel("version")


def test_schema_is_a_json_schema(installation: Installation) -> None:
    schema = json.loads(installation.citadel("schema"))
    assert "services" in schema["properties"]


def test_the_example_is_valid(installation: Installation) -> None:
    installation.citadel("validate", "platform/stack.yaml")


def test_a_broken_file_is_told_with_its_place_and_status_2(installation: Installation) -> None:
    (installation.folder / "broken.yaml").write_text("version: 1\nstack: ok\nservicez: {}\n")
    done = installation.run("citadel", "validate", "broken.yaml")
    assert done.returncode == 2
    assert "broken.yaml:3" in done.stdout + done.stderr
    assert "servicez" in done.stdout + done.stderr


def test_render_writes_definitions_from_the_templates_inside_the_wheel(installation: Installation) -> None:
    installation.citadel("render", "--file", "platform/stack.yaml", "--out", "rendered")
    rendered = list((installation.folder / "rendered").glob("*/*.json"))
    assert len(rendered) >= 12
    for path in rendered:
        definition = json.loads(path.read_text())
        assert definition.get("service") or definition.get("services")
