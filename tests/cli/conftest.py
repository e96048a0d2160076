"""A command line for each test, against the Consul that tests share, and a stack that really runs."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))  # its World, also if only these tests run

from command_line import CommandLine
from consul_process import ConsulProcess
from real_world import World

from citadel_consul.core.operation import Kind


@pytest.fixture
def cli(
    consul_server: ConsulProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[CommandLine]:
    """``citadel``, in this process, on a stack of the test's own."""
    made = CommandLine(consul_server, f"c{uuid.uuid4().hex[:8]}", monkeypatch, capsys, tmp_path)
    prefix = made.prefix
    yield made
    consul_server.request("DELETE", f"/v1/kv/{prefix}?recurse")


@pytest.fixture
def world(cli: CommandLine, consul_server: ConsulProcess, role_environment: dict[str, str]) -> Iterator[World]:
    """Processes of citadel on the stack of ``cli``; they and their services end with the test."""
    with World(consul_server.address, cli.folder, cli.stack, role_environment) as made:
        yield made


@pytest.fixture(scope="module")
def crew(
    consul_server: ConsulProcess, role_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """An orchestrator that leads and a node agent that answers: they take seconds to start, so once a module."""
    stack = f"c{uuid.uuid4().hex[:8]}"
    with World(consul_server.address, tmp_path_factory.mktemp("crew"), stack, role_environment) as made:
        made.orchestrator()
        made.agent()
        made.until_led()
        made.until(lambda: made.snapshot().agents, what="an agent")
        yield made
    consul_server.request("DELETE", f"/v1/kv/citadel/{stack}/?recurse")


@pytest.fixture
def running(cli: CommandLine, crew: World, consul_server: ConsulProcess) -> Iterator[World]:
    """``base ← middle ← top``, and ``aside``, none of which is up, in the hands of the crew and of ``cli``."""
    cli.join(crew.stack, crew.folder)
    specs = [crew.tiny(name, critical=name != "aside") for name in ("base", "middle", "top", "aside")]
    crew.apply(specs, [("middle", "base"), ("top", "middle")])
    processes = len(crew.processes)
    yield crew
    for process in crew.processes[processes:]:
        process.kill()
    for operation in crew.snapshot().operations:
        if not operation.ended:
            cli("ops", "cancel", operation.id)
            crew.end_of(operation.id)
    crew.operate(Kind.SHUTDOWN, graceful=False)
    for part in ("specs", "edges", "holds", "operations", "steps", "events"):
        consul_server.request("DELETE", f"/v1/kv/{cli.prefix}{part}/?recurse")
    for ledger in crew.folder.glob("*.lives"):
        ledger.unlink()
