"""citadel handback of a container: it runs on, and the engine restarts it again as it did before citadel came."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from consul_process import ConsulProcess
from docker_engine import Containers
from docker_fixtures import containers, containers_can_run
from real_world import World

from citadel_consul.core.model import DockerBackend, ServiceSpec
from citadel_consul.core.operation import Kind

__all__ = ["containers", "containers_can_run"]


@pytest.fixture
def real(consul_server: ConsulProcess, role_environment: dict[str, str], tmp_path: Path) -> Iterator[World]:
    """A stack of the test's own with real processes, which end with it."""
    with World(consul_server.address, tmp_path, f"t{uuid.uuid4().hex[:8]}", role_environment) as made:
        yield made


def policy_of(containers: Containers, container: str) -> str:
    found = containers.inspect(container)
    assert found is not None
    host = found["HostConfig"]
    assert isinstance(host, dict)
    return str(host["RestartPolicy"]["Name"])


def test_a_container_runs_on_and_its_engine_restarts_it_as_before(containers: Containers, real: World) -> None:
    name = f"citadel-handback-{uuid.uuid4().hex[:8]}"
    container = containers.create(name, "/bin/sleep", "600", host={"RestartPolicy": {"Name": "always"}})
    containers.start(container)
    pid = containers.state(container)["Pid"]
    real.orchestrator()
    real.agent()
    real.apply([ServiceSpec("sleeper", "test", ("n1",), DockerBackend(container=name))])
    assert real.operate(Kind.STARTUP, within=90.0).state == "succeeded"
    assert policy_of(containers, container) == "no", "citadel restarts it now"

    environ = {**os.environ, "CONSUL_HTTP_ADDR": real.consul, "CITADEL_STACK": real.stack}
    command = [sys.executable, "-m", "citadel_consul", "handback", "sleeper"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    assert policy_of(containers, container) == "always"
    assert containers.state(container)["Pid"] == pid
    assert not real.snapshot().specs
