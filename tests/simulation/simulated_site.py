"""A whole site on simulated time: machines, Consul, orchestrators, node agents, an operator; all of citadel is real.

What is simulated are the leaves: Consul behind httpx's transport, the machine behind the backend's protocol, readiness
probes, and the one TCP connection that a standby keeps to the leader. Everything is drawn from one seed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from clockwork import Process, SimulatedLoop, StuckError
from simulated_consul import Agent, Cluster
from simulated_link import Link, SimulatedTransport
from simulated_machine import Machine, MemoryChronicle, SimulatedProber
from story import Plan

from citadel_consul.agent.agent import AgentConfig, NodeAgent
from citadel_consul.agent.chronicle import Entry
from citadel_consul.agent.reporter import FEW_NODES
from citadel_consul.backends.fake import FakeBackend
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.model import ServiceSpec
from citadel_consul.orchestrator.orchestrator import Orchestrator, OrchestratorConfig
from citadel_consul.rendering.identity import check_id, service_id
from citadel_consul.store.keys import Keys
from citadel_consul.store.state import instance_of

STACK = "sim"
API_PORT = 8000


class Wire(asyncio.Transport):
    """One end of a connection over which nobody says anything."""

    def __init__(self, loop: SimulatedLoop, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol: Any = protocol
        self._closed = False

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    def end(self) -> None:
        """The other side is gone."""
        if not self._closed:
            self._protocol.eof_received()
            self.close()

    def pause_reading(self) -> None:
        """There is nothing to read."""

    def resume_reading(self) -> None:
        """There is nothing to read."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is written."""


class Site:
    """See the module. Processes that end by a fault come back after a while, as systemd has it, while ``reviving``.

    ``hear`` is told what node agents write down, ``on_crash`` of a process that ends by an error of its own.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        draw: random.Random,
        plan: Plan,
        hear: Callable[[Entry], None],
        on_crash: Callable[[str], None],
    ) -> None:
        self.loop = loop
        self.draw = draw
        self.plan = plan
        self.keys = Keys(STACK)
        loop.clock_offsets.update(plan.clocks)
        self.machines = {node: Machine(loop, lambda s: plan.boot_seconds[s]) for node in plan.nodes}
        for machine in self.machines.values():
            machine.behaviours.update(plan.behaviours)
        self.cluster = Cluster(loop, draw, self._healthy)
        self.consul = {n: Agent(self.cluster, n, f"10.0.0.{i}") for i, n in enumerate(plan.nodes, 1)}
        self.processes: dict[str, Process] = {}
        self.everybody: list[Process] = []
        self._hear = hear
        self._on_crash = on_crash
        self.reviving = True
        self._wires: dict[tuple[str, int], list[Wire]] = {}
        loop.network = self
        self.operator = Process("operator", plan.nodes[0])

    def _healthy(self, registration: str) -> bool:
        instance = instance_of(STACK, registration)
        return instance is None or self.machines[instance.node].healthy(instance)

    def client(self, node: str, process: Process) -> ConsulClient:
        """A client of the Consul agent on ``node``."""
        address = parse_address(f"{self.consul[node].address}:8500")
        return ConsulClient(address, transport=SimulatedTransport(address, transport=Link(self.consul[node], process)))

    # --- processes -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything that a site consists of."""
        for node in self.plan.nodes:
            self._start(f"agent-{node}", node, self._agent)
        for node in self.plan.nodes[: self.plan.orchestrators]:
            self._start(f"orchestrator-{node}", node, self._orchestrator)

    def _start(self, name: str, node: str, role: Callable[[str, Process], Any]) -> None:
        if not self.reviving:
            return
        process = Process(name, node)
        self.processes[name] = process
        self.everybody.append(process)
        task = self.loop.spawn(process, role(node, process))

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None and process.alive:
                self._on_crash(f"{name} ended by {task.exception()!r}")
                self.loop.kill(process)

        task.add_done_callback(ended)

        def revive() -> None:
            self.loop.call_later(self.draw.uniform(0.3, 4.0), self._start, name, node, role)

        process.on_death.append(revive)
        if role == self._orchestrator:
            process.on_death.append(lambda: self._hang_up(node))

    async def _orchestrator(self, node: str, process: Process) -> None:
        config = OrchestratorConfig(
            stack=STACK,
            node=node,
            api=f"{self.consul[node].address}:{API_PORT}",
            defaults=self.plan.defaults,
        )
        await Orchestrator(self.client(node, process), config, wall=self.loop.wall).run()

    async def _agent(self, node: str, process: Process) -> None:
        config = AgentConfig(
            stack=STACK,
            node=node,
            address=self.consul[node].address,
            home=f"{node}:/var/lib/citadel",
            few_nodes=0 if node in self.plan.signalling else FEW_NODES,
        )
        async with FakeBackend(self.machines[node]) as backend:
            agent = NodeAgent(
                self.client(node, process),
                config,
                backend,
                expand=lambda spec: spec,
                render=lambda spec, status: _registration(spec, node, self.consul[node].address, status),
                chronicle=MemoryChronicle(self.loop, self._hear),
                make_prober=lambda: SimulatedProber(self.machines[node], node),
                wall=self.loop.wall,
            )
            await agent.run()

    # --- the network -----------------------------------------------------------------------------------------------

    async def connect(
        self, loop: SimulatedLoop, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        """To an orchestrator's API: it stands until that process ends, and is refused when there is none."""
        await asyncio.sleep(self.draw.uniform(0.0001, 0.001))
        node = next(n for n, agent in self.consul.items() if agent.address == host)
        if not self.consul[node].linked:
            await loop.create_future()  # what is cut off does not answer; the caller's time-out ends this
        process = self.processes.get(f"orchestrator-{node}")
        if process is None or not process.alive:
            raise ConnectionRefusedError(f"{host}:{port}")
        protocol: Any = factory()
        wire = Wire(loop, protocol)
        protocol.connection_made(wire)
        self._wires.setdefault((node, port), []).append(wire)
        return wire, protocol

    def _hang_up(self, node: str) -> None:
        for wire in self._wires.pop((node, API_PORT), []):
            self.loop.call_later(self.draw.uniform(0.0001, 0.001), wire.end)

    # --- the end ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Let everything that ever ran come to an end, so that nothing is left for the next simulation."""
        self.reviving = False
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for agent in self.consul.values():
            agent.running = False
            agent.break_connections()
        for process in self.everybody:
            self.loop.bury(process)
        for task in tasks:
            task.cancel()
        _, pending = await asyncio.wait(tasks, timeout=60)
        if pending:
            raise StuckError(f"cannot be ended: {pending}")


def _registration(spec: ServiceSpec, node: str, address: str, status: str) -> dict[str, Any]:
    identity = service_id(STACK, spec.name, node)
    return {
        "ID": identity,
        "Name": spec.name,
        "Address": address,
        "Port": 80,
        "Meta": {"citadel-stack": STACK, "citadel-node": node},
        "Checks": [
            {
                "CheckID": check_id(identity, check.name),
                "Name": check.name,
                "HTTP": check.target,
                "Interval": f"{check.interval_seconds:g}s",
                "Status": status,
            }
            for check in spec.checks
        ],
    }
