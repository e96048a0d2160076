"""The example of a mixed stack, for real: systemd, compose and a process under one leader; Consul in a container."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker_engine
import httpx
import pytest
from busybox_image import can_run
from consul_image import ensure_consul_image
from docker_engine import Containers
from docker_fixtures import containers, containers_can_run
from managed_machine import Machine
from real_world import World, free_port

from citadel_consul.config.stackfile import load_stack
from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.ports import free_ports
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import Instance, Stack
from citadel_consul.core.operation import Kind

__all__ = ["containers", "containers_can_run"]

EXAMPLE = Path(__file__).parents[2] / "examples" / "mixed-stack"
NODE = "n1"
LONG = 120.0  # a loaded machine takes its time for a container


# Consul, in a container of an image that is made here, brought up by pytest-docker.


@pytest.fixture(scope="session")
def docker_compose_command() -> str:
    return "docker compose" if can_run("docker", "compose", "version") else "docker-compose"


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    return ["up -d"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["down -v -t 0"]


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    return f"citadel-test-consul-{os.getpid()}"


@pytest.fixture(scope="session")
def consul_address() -> str:
    """Where the Consul of the compose file listens."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="session")
def docker_compose_file(
    containers_can_run: None,
    consul_binary: ConsulBinary,
    consul_address: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    with docker_engine.client() as engine:
        image = ensure_consul_image(engine, consul_binary.path)
    # It runs the checks of services of this machine, so it shares the machine's loopback.
    ports = free_ports()
    listening = {"http": int(consul_address.rpartition(":")[2]), "dns": -1, "grpc": -1, "server": ports.server}
    listening |= {"serf_lan": ports.serf, "serf_wan": -1}
    config = {"ports": listening, "bind_addr": "127.0.0.1", "log_level": "WARN"}
    command = ["/bin/consul", "agent", "-dev", "-node=container", "-hcl", json.dumps(config)]
    service = {"image": image, "command": command, "network_mode": "host"}
    file = tmp_path_factory.mktemp("consul") / "compose.yaml"
    file.write_text(json.dumps({"version": "3.8", "services": {"consul": service}}))
    return str(file)


@pytest.fixture(scope="session")
def consul_in_container(docker_services: object, consul_address: str) -> str:
    """The address of a Consul that has a leader."""

    def leads() -> bool:
        try:
            answer = httpx.get(f"http://{consul_address}/v1/status/leader", timeout=2.0)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200 and ":" in answer.text

    docker_services.wait_until_responsive(check=leads, timeout=60.0, pause=0.1)  # type: ignore[attr-defined]
    return consul_address


# The example, on free ports, with its unit on a machine that runs systemd.


@dataclass(frozen=True)
class Site:
    """The stack as it runs here. Containers are made by the node agent's compose, from ``folder``."""

    world: World
    stack: Stack
    machine: Machine
    containers: Containers
    project: str
    settings: dict[str, str]

    def observed(self, service: str) -> Observed:
        return self.world.snapshot().observed[Instance(service, NODE)]

    def is_ready(self, service: str, starts: int) -> bool:
        """Whether it is ready after that many starts, counted from the first."""
        seen = self.observed(service)
        return seen.phase is Phase.READY and seen.starts == starts

    def database(self) -> str:
        """The id of the container that compose made; there is no other one."""
        (container,) = self.containers.of_project(self.project)
        return container


@pytest.fixture
def site(
    consul_in_container: str,
    containers: Containers,
    new_machine: Callable[[], Machine],
    role_environment: dict[str, str],
    tmp_path: Path,
) -> Iterator[Site]:
    machine = new_machine()
    folder = tmp_path / "mixed-stack"
    shutil.copytree(EXAMPLE, folder)
    project = f"citadel-test-{containers.run}-mixed"
    ports = {"7301": str(free_port()), "7303": str(free_port())}
    changes = {"127.0.0.1:7302": f"{machine.address}:7302", "project: mixed": f"project: {project}"} | ports
    for name in ("stack.yaml", "compose.yaml"):
        text = (folder / name).read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        (folder / name).write_text(text)
    machine.unit("mixed-cache.service", (EXAMPLE / "mixed-cache.service").read_text().replace("127.0.0.1", "0.0.0.0"))
    machine.daemon_reload()
    settings = {"DBUS_SYSTEM_BUS_ADDRESS": machine.system_bus, "MIXED_STACK_IMAGE": containers.image}
    with World(consul_in_container, tmp_path, f"t{uuid.uuid4().hex[:8]}", role_environment) as world:
        yield Site(world, load_stack(folder / "stack.yaml"), machine, containers, project, settings)
        world.operate(Kind.SHUTDOWN, within=LONG)
    containers.clear(project)


def test_a_unit_a_compose_service_and_a_process_are_one_stack(site: Site) -> None:
    world = site.world
    world.apply(site.stack.services.values(), site.stack.edges)
    world.orchestrator()
    agent = world.agent(**site.settings)
    world.until_led()
    assert world.operate(Kind.STARTUP, within=LONG).state == "succeeded", world.logs()

    # In order, and nothing but what the stack names: compose's depends_on would have started 'audit'.
    at = {(entry.service, entry.what): entry.at for entry in world.chronicle()}
    assert at["web", "started"] > max(at["db", "ready"], at["cache", "ready"])
    assert site.containers.state(site.database())["Running"] is True
    assert site.machine.shown("mixed-cache.service", "ActiveState") == "active"

    # Each manager tells of an end, and the leader decides what follows.
    site.containers.kill(site.database())
    world.until(lambda: site.is_ready("db", 2), LONG, "the container is recovered")
    site.machine.run(["systemctl", "kill", "--signal=KILL", "mixed-cache.service"])
    world.until(lambda: site.is_ready("cache", 2), LONG, "the unit is recovered")
    world.until(lambda: site.is_ready("web", 2), LONG, "what depends on the cache is restarted after it")

    # The next agent takes up what runs.
    before = {name: site.observed(name) for name in site.stack.services}
    agent.kill()
    world.agent(**site.settings)
    adopted = {"db", "cache", "web"}
    world.until(
        lambda: {entry.service for entry in world.chronicle() if entry.what == "adopted"} == adopted, LONG, "adoption"
    )
    world.until(lambda: all(site.is_ready(name, 2) for name in adopted), LONG, "ready again")
    assert {name: site.observed(name).pid for name in adopted} == {name: seen.pid for name, seen in before.items()}

    assert world.operate(Kind.SHUTDOWN, within=LONG).state == "succeeded", world.logs()
    assert site.containers.state(site.database())["Running"] is False
    assert site.machine.shown("mixed-cache.service", "ActiveState") in {"inactive", "failed"}
