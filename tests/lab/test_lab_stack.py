"""The lab's stack: the example's graph, spread over the lab's nodes so that any one server can go."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from citadel_lab import layout  # type: ignore[import-not-found,unused-ignore]
from citadel_lab.topology import load_topology  # type: ignore[import-not-found,unused-ignore]

from citadel_consul.config.stackfile import load_stack
from citadel_consul.core.model import Edge, ProcessBackend, Stack, Strength

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ai-platform" / "stack.yaml"


@pytest.fixture(scope="module")
def stack() -> Stack:
    return load_stack(layout.HOME / "stack.yaml")


def shape(edge: Edge) -> tuple[str, str, str, str, str]:
    return (edge.service, edge.dependency, edge.condition, edge.strength, edge.on_recovery)


def test_its_edges_are_those_of_the_example(stack: Stack) -> None:
    assert {shape(edge) for edge in stack.edges} == {shape(edge) for edge in load_stack(EXAMPLE).edges}


def test_it_is_spread_over_every_node_of_the_lab_and_no_other(stack: Stack) -> None:
    used = {node for service in stack.services.values() for node in service.nodes}
    assert used == {node.name for node in load_topology("docker").nodes}
    assert stack.name == load_topology("docker").stack


@pytest.mark.parametrize("gone", ["server-1", "server-2", "server-3"])
def test_any_one_server_can_go(stack: Stack, gone: str) -> None:
    left = {name: [node for node in service.nodes if node != gone] for name, service in stack.services.items()}
    assert all(left[name] for name, service in stack.services.items() if service.critical)
    for edge in stack.edges:
        if edge.strength is Strength.HARD and stack.services[edge.service].critical:
            needed = edge.min_instances or len(stack.services[edge.dependency].nodes)
            assert len(left[edge.dependency]) >= needed, edge


def test_what_a_service_asks_for_is_what_it_depends_on(stack: Stack) -> None:
    for name, service in stack.services.items():
        assert isinstance(service.backend, ProcessBackend)
        asked = {need.partition(":")[0] for need in service.backend.env.get("NEEDS", "").split()}
        hard = {edge.dependency for edge in stack.edges if edge.service == name and edge.strength is Strength.HARD}
        edges = {edge.dependency for edge in stack.edges if edge.service == name}
        assert hard <= asked <= edges, name


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def service(port: int) -> Iterator["subprocess.Popen[bytes]"]:
    program = layout.HOME / "services" / "lab_service.py"
    environment = {**os.environ, "NAME": "gateway", "ADDRESS": "127.0.0.1", "PORT": str(port)}
    with subprocess.Popen([sys.executable, program], env=environment, stderr=subprocess.DEVNULL) as process:
        wait_until_it_listens(port)
        yield process
        process.kill()


def wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail(f"nothing listens on port {port}")


def fetch(port: int, path: str) -> dict[str, object]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        body: dict[str, object] = json.load(answer)
        return body


def test_the_labs_service_tells_its_health_and_where_it_runs(service: "subprocess.Popen[bytes]", port: int) -> None:
    assert fetch(port, "/health") == {"service": "gateway", "ok": True}
    assert fetch(port, "/") == {"service": "gateway", "node": socket.gethostname(), "ok": True, "needs": {}}
    with pytest.raises(urllib.error.HTTPError, match="404"), urllib.request.urlopen(f"http://127.0.0.1:{port}/x"):
        pass


def test_the_labs_service_ends_well_when_it_is_asked_to(service: "subprocess.Popen[bytes]") -> None:
    service.send_signal(signal.SIGTERM)
    assert service.wait(timeout=5) == 0
