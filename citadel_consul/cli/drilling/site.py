"""The stack that is drilled: how it is read, and how operations are asked of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from citadel_consul.api.reading import read_stack
from citadel_consul.cli.drilling.sequence import PREFIX, Happening, Layout
from citadel_consul.cli.invocation import caller
from citadel_consul.cli.progress import Silent, follow_to_end
from citadel_consul.consul.catalog import ServiceHealth
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.core.model import Instance, ServiceSpec
from citadel_consul.core.operation import ALL, Kind, Operation, Options
from citadel_consul.core.snapshot import Defaults, Snapshot
from citadel_consul.errors import NoLeader, Refused
from citadel_consul.rendering.expansion import expand
from citadel_consul.rendering.identity import service_id
from citadel_consul.rendering.scope import NodeContext
from citadel_consul.store.history import decode_events
from citadel_consul.store.keys import Keys
from citadel_consul.store.requests import submit
from citadel_consul.store.state import StackState, instance_of

LOOK_SECONDS = 0.05
"""How often something is looked at whose time is measured."""


@dataclass(frozen=True, slots=True)
class Site:
    """One stack on one Consul. ``say`` tells the person who waits what is being done."""

    client: ConsulClient
    stack: str
    defaults: Defaults
    say: Callable[[str], None]

    @property
    def keys(self) -> Keys:
        return Keys(self.stack)

    # --- reading ------------------------------------------------------------------------------------------------

    async def read(self) -> StackState:
        return await read_stack(self.client, self.stack, self.defaults)

    async def snapshot(self) -> Snapshot:
        return (await self.read()).snapshot()

    async def mark(self) -> int:
        """A raft index: every event that is written from now on has a higher one."""
        return (await self.client.kv_list(self.keys.events, consistent=True)).index

    async def history(self, since: int) -> tuple[Happening, ...]:
        """What the node agents wrote of their instances after the raft index ``since``, in raft's order."""
        listing = await self.client.kv_list(self.keys.events, consistent=True)
        found = []
        for entry in listing.value:
            happening = self._happening(entry) if entry.create_index > since else None
            if happening is not None:
                found.append(happening)
        return tuple(sorted(found))

    def _happening(self, entry: KVEntry) -> Happening | None:
        for event in decode_events(self.keys, [entry]):
            if event.kind.startswith(PREFIX) and event.service is not None and event.node is not None:
                instance = Instance(event.service, event.node)
                return Happening(entry.create_index, event.at, event.kind.removeprefix(PREFIX), instance)
        return None

    async def catalog(self, services: tuple[str, ...]) -> Mapping[Instance, ServiceHealth]:
        """Every instance of the stack that is registered with Consul, with its checks."""
        entries = [entry for service in services for entry in (await self.client.health_service(service)).value]
        found = {instance_of(self.stack, entry.service.id): entry for entry in entries}
        return {instance: entry for instance, entry in found.items() if instance is not None}

    # --- doing --------------------------------------------------------------------------------------------------

    async def operate(self, kind: Kind, *targets: str) -> Timed:
        """Ask for an operation and see it through. Raises NoLeader or ConsulUnavailable."""
        names = targets or (ALL,)
        self.say(f"{kind} of {', '.join(names)} …")
        began = time.monotonic()
        operation = await submit(self.client, self.keys, kind, names, Options(reason="drill"), requested_by=caller())
        ended = await follow_to_end(self.client, self.keys, operation, Silent())
        return Timed(ended, time.monotonic() - began)

    async def until(self, look: Callable[[], Awaitable[object]], within_seconds: float) -> float | None:
        """Wait until ``look`` finds something; returns the seconds that it took, None if they were not enough."""
        began = time.monotonic()
        while True:
            found = await look()
            took = time.monotonic() - began
            if found:
                return took
            if took > within_seconds:
                return None
            await asyncio.sleep(LOOK_SECONDS)


@dataclass(frozen=True, slots=True)
class Timed:
    """An operation that has ended, and how long it took in the eyes of who asked for it."""

    operation: Operation
    seconds: float


def layout_of(snapshot: Snapshot) -> Layout:
    """What the order of starts and stops is judged by."""
    return Layout(snapshot.specs, snapshot.graph.edges)


def expanded(state: StackState, instance: Instance) -> ServiceSpec | None:
    """The spec of an instance with its templates filled in for its node; None without a node agent there."""
    addresses = {record.node: record.address for record in state.agents.values.values()}
    spec = next((s for s in state.specs.values.values() if s.name == instance.service), None)
    if spec is None or instance.node not in addresses:
        return None
    return expand(spec, NodeContext(instance.node, addresses[instance.node], state.keys.stack))


def lasting(snapshot: Snapshot) -> tuple[Instance, ...]:
    """Every instance that is to stay up: what runs once and is done is not registered, nor checked."""
    return tuple(i for spec in snapshot.specs.values() if not spec.oneshot for i in spec.instances)


def consul_id(stack: str, instance: Instance) -> str:
    """What an instance is called by Consul."""
    return service_id(stack, instance.service, instance.node)


async def check_ready(site: Site) -> None:
    """Raise Refused or NoLeader if there is nothing to drill, or nobody to do it."""
    state = await site.read()
    snapshot = state.snapshot()
    if not snapshot.specs:
        raise Refused(f"stack {site.stack!r} has no services: citadel apply FILE writes them")
    if state.current_leader() is None:
        raise NoLeader(f"no orchestrator leads stack {site.stack!r}: start one, or citadel dev")
    nodes = {node for spec in snapshot.specs.values() for node in spec.nodes}
    silent = sorted(nodes - snapshot.agents)
    if silent:
        raise Refused(f"no node agent answers for {', '.join(silent)}: start citadel agent there")
