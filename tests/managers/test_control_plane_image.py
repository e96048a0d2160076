"""The control plane in containers: the image is built, two of it elect a leader, and the compose file is one."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator

import pytest
from installed_site import build_wheel
from machine_image import ROOT, ensure_wheels
from managed_machine import Machine

PLACE = ROOT / "examples" / "control-plane"


@pytest.fixture(scope="module")
def image(machine_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, built as the Dockerfile says, without any network, on the Debian that is at hand."""
    context = tmp_path_factory.mktemp("context")
    (context / "dist").mkdir()
    for wheel in (build_wheel(ROOT, tmp_path_factory.mktemp("wheel")), *ensure_wheels().glob("*.whl")):
        shutil.copy(wheel, context / "dist")
    tag = f"citadel-test/control-plane:{uuid.uuid4().hex[:8]}"
    arguments = [f"--build-arg=BASE={machine_image}", "--build-arg=PIP_NO_INDEX=1", "--network=none", f"--tag={tag}"]
    docker("build", f"--file={PLACE / 'Dockerfile'}", *arguments, str(context), seconds=300.0)
    yield tag
    docker("image", "rm", "--force", tag)
    docker("image", "prune", "--force", "--filter=label=citadel.stage=build")


@pytest.fixture
def orchestrators(image: str, machine: Machine, machine_network: object) -> Iterator[dict[str, str]]:
    """Two orchestrators of a stack of their own over the Consul of a machine: their nodes and containers."""
    consul = machine.start_consul()
    found = {}
    network = f"--network=container:{machine.container}"
    try:
        for node, port in (("o1", 8001), ("o2", 8002)):
            settings = {
                "CITADEL_STACK": "contained",
                "CITADEL_NODE": node,
                "CITADEL_API_BIND": f"127.0.0.1:{port}",
                "CONSUL_HTTP_ADDR": consul,
            }
            variables = [f"--env={name}={value}" for name, value in settings.items()]
            hardening = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true", "--init"]
            found[node] = docker("run", "--detach", network, *hardening, *variables, image).strip()
        yield found
    finally:
        for container in found.values():
            docker("rm", "--force", "--volumes", container)


def docker(*words: str, seconds: float = 60.0) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def leader(machine: Machine) -> str:
    """The node that leads; empty if none does."""
    done = machine.run(["consul", "kv", "get", "-detailed", "citadel/contained/leader"], check=False)
    values = dict(line.split(None, 1) for line in done.stdout.splitlines() if len(line.split(None, 1)) == 2)
    return str(json.loads(values["Value"])["node"]) if values.get("Session", "-") != "-" else ""


def test_contained_orchestrators_elect_a_leader_and_replace_it(machine: Machine, orchestrators: dict[str, str]) -> None:
    machine.until(lambda: leader(machine) in orchestrators, "one of them leads")
    first = leader(machine)
    assert docker("exec", orchestrators[first], "id", "-un").strip() == "citadel"
    for port in (8001, 8002):
        machine.until(
            lambda port=port: (  # type: ignore[misc]
                machine.run(["curl", "-sf", f"http://127.0.0.1:{port}/readyz"], check=False).returncode == 0
            ),
            f"the one at {port} answers",
        )
    docker("stop", orchestrators[first])
    assert docker("inspect", "--format={{.State.ExitCode}}", orchestrators[first]).strip() == "0"
    machine.until(lambda: leader(machine) not in ("", first), "the other one leads")


def test_the_compose_file_is_valid_and_builds_that_image(engine: str) -> None:
    for command in (["docker", "compose"], ["docker-compose"]):
        words = [*command, "-f", str(PLACE / "compose.yaml"), "config"]
        if shutil.which(command[0]) is None:
            continue
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode == 0:
            assert "examples/control-plane/Dockerfile" in done.stdout
            assert done.stdout.count("CITADEL_NODE:") == 2
            return
        assert "is not a docker command" in done.stderr or "unknown" in done.stderr, done.stderr
    pytest.skip("no docker compose is installed here")
