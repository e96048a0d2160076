"""Orchestrators and node agents, each behind a proxy of its own, so that each can fail by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from consul_proxy import ConsulProxy
from real_world import MARK, TINY, Process, World

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.model import Check, CheckKind, ProcessBackend, ServiceSpec
from citadel_consul.errors import Refused, TemporaryError
from citadel_consul.orchestrator.handover import candidates
from citadel_consul.store.keys import Keys
from citadel_consul.store.requests import cancel

T = TypeVar("T")
MANNED_SECONDS = 180.0
"""A role needs a second of a core to start, and two dozen of them can start at once on two cores that others share."""


@dataclass
class PatientWorld(World):
    """A world whose own questions outlive a failing Consul: they are asked again, of each member in turn."""

    consuls: Sequence[str] = ()
    patience_seconds: float = 120.0

    def ask(self, work: Callable[[ConsulClient], Awaitable[T]]) -> T:
        addresses = self.consuls or (self.consul,)
        deadline, attempt = time.monotonic() + self.patience_seconds, 0
        while True:
            address = addresses[attempt % len(addresses)]
            try:
                return asyncio.run(_once(address, work))
            except TemporaryError:
                if time.monotonic() > deadline:
                    raise
            attempt += 1
            time.sleep(0.1)

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """Ask once only, and raise TemporaryError where Consul does not answer."""
        patience, self.patience_seconds = self.patience_seconds, 0.0
        try:
            yield
        finally:
            self.patience_seconds = patience

    def glimpse_of_leader(self) -> dict[str, Any] | None:
        """The record of the leader if it can be had at once."""
        try:
            with self.impatient():
                return self.leader()
        except TemporaryError:
            return None

    def cancel(self, operation_id: str) -> None:
        """Ask for the end of an operation, unless it has ended. Raises TemporaryError unless it is done at once."""

        async def write(client: ConsulClient) -> None:
            try:
                await cancel(client, Keys(self.stack), operation_id, by="test")
            except Refused:
                return

        with self.impatient():
            self.ask(write)

    def standbys(self) -> int:
        """How many orchestrators could lead, the leader included."""

        async def read(client: ConsulClient) -> int:
            return len(await candidates(client, self.stack))

        return self.ask(read)


async def _once(address: str, work: Callable[[ConsulClient], Awaitable[T]]) -> T:
    async with ConsulClient(parse_address(address)) as client:
        return await work(client)


@dataclass
class Role:
    """One process of citadel. It starts again under the same name, behind the same proxy."""

    world: World
    kind: str
    node: str
    proxy: ConsulProxy
    settings: dict[str, str] = field(default_factory=dict)
    lives: list[Process] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.node}"

    @property
    def process(self) -> Process:
        return self.lives[-1]

    @property
    def log(self) -> str:
        return "".join(life.log.read_text(errors="replace") for life in self.lives)

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.lives and self.process.alive:
            return
        begin = self.world.orchestrator if self.kind == "orchestrator" else self.world.agent
        self.lives.append(begin(self.node, consul=self.proxy.address, **self.settings))

    def kill(self) -> None:
        self.process.kill()

    def pause(self) -> None:
        self.process.pause()

    def heal(self) -> None:
        """Undo whatever a test did to it, and start it if it does not run."""
        self.proxy.delay_seconds = 0.0
        if self.proxy.hold is not None:
            self.proxy.hold.release()
        self.proxy.hold = None
        self.proxy.speak()
        if self.proxy.disarm():
            self.kill()  # it was killed, and may not have died of it yet
        if self.process.alive:
            self.process.resume()
        else:
            self.start()


class Crew:
    """All roles of one stack. Their proxies end with it; their processes end with the world."""

    def __init__(self, world: PatientWorld) -> None:
        self.world = world
        self.orchestrators: list[Role] = []
        self.agents: list[Role] = []
        self._proxies: list[ConsulProxy] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for role in self.roles:
            if role.process.alive:
                role.process.resume()
                role.kill()
        for proxy in self._proxies:
            proxy.__exit__()

    @property
    def roles(self) -> list[Role]:
        return [*self.orchestrators, *self.agents]

    def orchestrator(self, node: str, consul: str | None = None, **settings: str) -> Role:
        """Start an orchestrator that reaches Consul at ``consul``."""
        return self._add(self.orchestrators, "orchestrator", node, consul, settings)

    def agent(self, node: str, consul: str | None = None, **settings: str) -> Role:
        """Start the node agent of ``node``."""
        return self._add(self.agents, "agent", node, consul, settings)

    def _add(self, roles: list[Role], kind: str, node: str, consul: str | None, settings: dict[str, str]) -> Role:
        proxy = ConsulProxy(consul or self.world.consul).__enter__()
        self._proxies.append(proxy)
        role = Role(self.world, kind, node, proxy, settings)
        roles.append(role)
        role.start()
        return role

    def leader(self, within: float = 30.0) -> Role:
        """The role that leads now; waits for one."""
        record = self.world.until_led(within)
        return next(role for role in self.orchestrators if role.node == record["node"])

    def until_manned(self, within: float = MANNED_SECONDS) -> None:
        """Wait for a leader, for every standby, and for every node agent."""
        nodes = {role.node for role in self.agents}
        self.world.until_led(within)
        self.world.until(lambda: self.world.standbys() == len(self.orchestrators), within, "every orchestrator")
        self.world.until(lambda: self.world.snapshot().agents == nodes, within, "every node agent")

    def heal(self) -> None:
        for role in self.roles:
            role.heal()


NewCrew = Callable[..., Crew]
"""Makes a crew in a world of its own: ``new_crew(*consul_addresses, **environment)``."""


def spread(world: World, name: str, nodes: Sequence[str], *, delay: float = 0.02, **fields: Any) -> ServiceSpec:
    """A tiny service with an instance on each of ``nodes``, each with a port and a ledger of its own."""
    ports = {node: world.port_of(f"{name}@{node}") for node in nodes}
    port = f"{{{{ {ports}[node.name] }}}}"
    ledger = f"{world.folder}/{name}@{{{{ node.name }}}}.lives"
    command = ("{{ python }}", "-S", "-E", str(TINY), port, str(delay), ledger)
    return world.tiny(
        name,
        nodes,
        backend=ProcessBackend(command=command, env=MARK),
        endpoint=f"tcp://127.0.0.1:{port}",
        checks=(Check("tcp", CheckKind.TCP, f"127.0.0.1:{port}", interval_seconds=1.0, timeout_seconds=1.0),),
        **fields,
    )
