"""A real stack of a busy service with an instance on each of some nodes, and what tests of draining ask about it."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from real_world import MARK, Process, World, free_port

from citadel_consul.agent.chronicle import Entry
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.lifecycle import Observed
from citadel_consul.core.model import Check, CheckKind, Edge, Instance, ProcessBackend, ServiceSpec
from citadel_consul.core.operation import Kind, Operation, OperationState

SERVICE = "busy"
_PROGRAM = Path(__file__).with_name("busy_service.py")
FIGURE = {"in_flight": "requests.active"}


@dataclass
class Hall:
    """``busy`` on each of ``nodes``, all on this machine, and ``gateway`` above it, which needs all but one."""

    world: World
    nodes: Sequence[str]
    agents: dict[str, Process] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ports = {node: free_port() for node in self.nodes}
        self.edge = Edge("gateway", SERVICE, min_instances=max(1, len(self.nodes) - 1))

    def open(self, *, orchestrator: bool = True, **fields: Any) -> None:
        """Start everything. ``fields`` go into the spec of the service."""
        self.world.apply([self.spec(**fields), self.world.tiny("gateway", self.nodes[:1])], [self.edge])
        for node in self.nodes:
            self.agents[node] = self.world.agent(node)
        if orchestrator:
            self.world.orchestrator()
        self.up()

    def up(self) -> None:
        operation = self.world.operate(Kind.STARTUP, within=60.0)
        assert operation.state is OperationState.SUCCEEDED, f"{operation}\n{self.world.logs()}"

    def spec(self, **fields: Any) -> ServiceSpec:
        """The service. What differs between the nodes is a template, as in any stack file."""
        port = "{{ %s[node.name] }}" % json.dumps(self.ports)  # noqa: UP031 – braces
        ledger = str(self.world.folder / f"{SERVICE}@{{{{ node.name }}}}.lives")
        address = f"127.0.0.1:{port}"
        health = Check("http", CheckKind.HTTP, f"http://{address}/health", interval_seconds=1.0, timeout_seconds=5.0)
        defaults: dict[str, Any] = {
            "type": "test",
            "backend": ProcessBackend(command=(sys.executable, "-E", str(_PROGRAM), port, ledger), env=MARK),
            "endpoint": f"http://{address}",
            "health_endpoint": f"http://{address}/health",
            "checks": (health,),
            "metrics": FIGURE,
            "start_timeout_seconds": 40.0,
            "stop_timeout_seconds": 5.0,
        }
        return ServiceSpec(name=SERVICE, nodes=tuple(self.nodes), **{**defaults, **fields})

    # --- what is true -------------------------------------------------------------------------------------------

    def url(self, node: str, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.ports[node]}{path}"

    def get(self, node: str, path: str = "/") -> str:
        """Ask one instance directly."""
        with urllib.request.urlopen(self.url(node, path), timeout=120) as response:
            return str(response.read().decode())

    def pids(self, node: str) -> list[int]:
        """Every process that the instance ever had, in order."""
        return self.world.lives(f"{SERVICE}@{node}")

    def lives(self) -> set[str]:
        """Every process that there ever was, by number, as they answer."""
        return {str(pid) for node in self.nodes for pid in self.pids(node)}

    def running(self, node: str) -> list[int]:
        return self.world.running_pids().get(f"{SERVICE}@{node}", [])

    def observed(self, node: str) -> Observed:
        return self.world.snapshot().observed[Instance(SERVICE, node)]

    def passing(self) -> set[str]:
        """The nodes whose instance Consul names to its clients."""

        async def ask(client: ConsulClient) -> set[str]:
            found = await client.health_service(SERVICE, passing=True)
            return {entry.service.id.rpartition(".")[2] for entry in found.value}

        return self.world.ask(ask)

    def maintenance(self) -> dict[str, str]:
        """The nodes whose instance is in maintenance mode, with the notes on why."""

        async def ask(client: ConsulClient) -> dict[str, str]:
            checks = (await client.agent_checks(f'ServiceName == "{SERVICE}"')).values()
            marks = {c.service_id.rpartition(".")[2]: c.notes for c in checks if c.is_maintenance}
            stack = self.world.stack
            return {n: notes for n, notes in marks.items() if any(c.service_id == f"{stack}.busy.{n}" for c in checks)}

        return self.world.ask(ask)

    def history(self, node: str) -> list[str]:
        """What happened to the instance, as its agents wrote it down."""
        entries: list[Entry] = self.world.chronicle()
        return [entry.what for entry in entries if (entry.service, entry.node) == (SERVICE, node)]

    def fewest_ready(self) -> int:
        """How many instances were ready at least, at any moment after all were for the first time."""
        ready: set[str] = set()
        fewest: int | None = None
        for entry in self.world.chronicle():
            if entry.service != SERVICE:
                continue
            if entry.what == "ready":
                ready.add(entry.node)
            elif entry.what in ("draining", "stopping", "exited"):
                ready.discard(entry.node)
            if fewest is not None or len(ready) == len(self.nodes):
                fewest = min(len(ready), len(self.nodes) if fewest is None else fewest)
        return fewest or 0


def succeeded(operation: Operation, world: World) -> None:
    assert operation.state is OperationState.SUCCEEDED, f"{operation}\n{world.logs()}"
