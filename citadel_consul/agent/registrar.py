"""The node agent's dealings with the catalog: registering, marking down, taking out, and mending what was forgotten.

A service is registered as passing at the moment it is ready, not before: a check that starts critical and is first
run after a part of its interval would cost that part in every hop of a start. When a service dies it is marked
critical at once, so that DNS stops naming it before any check could notice; when it is stopped by order it is taken
out before the stop.

The local Consul agent is the authority on its services. It may forget them (a dev agent does when it is restarted),
so they are compared from time to time and whatever is missing is registered again; what is there is left alone,
because registering again would reset its checks. And the catalog may differ from what the agent has told it: after the
restore of a snapshot some is missing and some is there again. By itself the agent compares only every minute or two.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Any

from citadel_consul.agent.readiness import PROBED
from citadel_consul.consul.catalog import CRITICAL, PASSING
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.model import Instance, ServiceSpec
from citadel_consul.errors import CitadelError, NotFound
from citadel_consul.store.state import instance_of

CATALOG_EVERY = 3
"""Each which comparison is also one with the catalog."""
VISIBLE_SECONDS = 10.0
"""How long the catalog may take to show a registration before it is made again."""

DRAINING = "citadel drains it: it is stopped when nothing more is in flight"
"""What stands in the notes of the maintenance mode, for people."""

Render = Callable[[ServiceSpec, str], dict[str, Any]]
"""The body of the agent API's registration for a spec, with the given status on every check."""


class Registrar:
    """Registers the instances of one stack on one node with the local Consul agent."""

    def __init__(self, client: ConsulClient, stack: str, node: str, render: Render) -> None:
        self._client = client
        self._stack = stack
        self._node = node
        self._render = render
        self._ready: dict[Instance, ServiceSpec] = {}
        self._down: dict[Instance, ServiceSpec] = {}
        self._leaving: set[Instance] = set()
        self._missed: frozenset[str] = frozenset()
        self._ghosts: frozenset[str] = frozenset()

    async def announce(self, spec: ServiceSpec, instance: Instance) -> None:
        """Register as passing, and return when the catalog shows it so."""
        self._forget(instance)
        self._ready[instance] = spec
        if not all(check.kind in PROBED for check in spec.checks):
            await self._register(spec, CRITICAL)  # what we cannot probe, Consul or the service itself has to say
            await self._until_visible(instance)
            return
        while True:
            await self._register(spec, PASSING)
            try:
                async with asyncio.timeout(VISIBLE_SECONDS):
                    await self._until_visible(instance)
            except TimeoutError:
                continue
            return

    async def mark_down(self, spec: ServiceSpec, instance: Instance) -> None:
        """Show an instance that was ready once as critical, until it is ready again or taken out."""
        self._forget(instance)
        self._down[instance] = spec
        await self._register(spec, CRITICAL)

    async def withdraw(self, instance: Instance) -> None:
        """Take the instance out of the catalog. Fine if it is not there."""
        self._forget(instance)
        await self._client.deregister_service(self._id(instance))

    async def conceal(self, instance: Instance) -> None:
        """Have the catalog name a registered instance to nobody, by Consul's maintenance mode; return when it is so.

        It stays registered, so that people see it, until it is taken out or is ready again.
        """
        self._forget(instance)
        self._leaving.add(instance)
        with contextlib.suppress(NotFound):  # the agent has forgotten it, and the catalog will soon
            await self._client.service_maintenance(self._id(instance), True, DRAINING)
        await self._until_concealed(instance)

    def _forget(self, instance: Instance) -> None:
        self._ready.pop(instance, None)
        self._down.pop(instance, None)
        self._leaving.discard(instance)

    def adopt(self, instance: Instance, spec: ServiceSpec) -> None:
        """Take an instance as registered by an earlier agent, to be mended if it is not."""
        self._ready[instance] = spec

    def adopt_leaving(self, instance: Instance) -> None:
        """Take an instance as concealed by an earlier agent."""
        self._leaving.add(instance)

    @property
    def in_doubt(self) -> bool:
        """Whether the catalog differed from what is known here when it was last looked at."""
        return bool(self._missed or self._ghosts)

    async def mend(self, consul_node: str) -> None:
        """Register what Consul forgot, and take out what nobody answers for (a ghost of this stack and node)."""
        await self.mend_agent()
        await self.mend_catalog(consul_node)

    async def mend_agent(self) -> None:
        """Do so with what the local Consul agent has."""
        there = await self._client.agent_services(
            f'Meta["citadel-stack"] == "{self._stack}" and Meta["citadel-node"] == "{self._node}"'
        )
        for instance, spec in list(self._ready.items()):
            if self._id(instance) not in there and self._ready.get(instance) is spec:
                await self._register(spec, PASSING)
        known = {self._id(i) for i in (*self._ready, *self._down, *self._leaving)}
        for service_id in there:
            if service_id not in known and instance_of(self._stack, service_id) is not None:
                await self._deregister_quietly(service_id)

    async def mend_catalog(self, consul_node: str) -> None:
        """Have the local agent tell the catalog again what it believes to have told it.

        Only what was found twice in a row: a moment after a change the two differ in any case.
        """
        entries = (await self._client.node_services(consul_node)).values()
        listed = {entry.id: entry.name for entry in entries if self._is_ours(entry.id)}
        missed, self._missed = self._missed, frozenset(self._id(i) for i in self._ready) - listed.keys()
        for instance, spec in list(self._ready.items()):
            if self._id(instance) in missed & self._missed and self._ready.get(instance) is spec:
                await self._register(spec, PASSING)
        known = {self._id(i) for i in (*self._ready, *self._down, *self._leaving)}
        ghosts, self._ghosts = self._ghosts, frozenset(listed.keys() - known)
        for service_id in ghosts & self._ghosts:
            await self._exorcise(service_id, listed[service_id])

    async def _exorcise(self, service_id: str, name: str) -> None:
        """Take out of the catalog what the local agent does not have: it has to have it first."""
        await self._client.register_service({"ID": service_id, "Name": name}, replace_checks=True)
        await self._deregister_quietly(service_id)

    def _is_ours(self, service_id: str) -> bool:
        instance = instance_of(self._stack, service_id)
        return instance is not None and instance.node == self._node

    async def _register(self, spec: ServiceSpec, status: str) -> None:
        await self._client.register_service(self._render(spec, status), replace_checks=True)

    async def _deregister_quietly(self, service_id: str) -> None:
        try:
            await self._client.deregister_service(service_id)
        except NotFound:
            return

    async def _until_visible(self, instance: Instance) -> None:
        """Wait for the catalog, which the agent tells of its services a moment later (anti-entropy)."""
        wanted, index = self._id(instance), None
        while True:
            found = await self._client.health_service(instance.service, index=index, wait_seconds=2.0)
            if any(entry.service.id == wanted and entry.status != CRITICAL for entry in found.value):
                return
            index = found.index or None

    async def _until_concealed(self, instance: Instance) -> None:
        wanted, index = self._id(instance), None
        while True:
            found = await self._client.health_service(instance.service, index=index, wait_seconds=2.0)
            if not any(entry.service.id == wanted and entry.status != CRITICAL for entry in found.value):
                return
            index = found.index or None

    def _id(self, instance: Instance) -> str:
        return f"{self._stack}.{instance.service}.{instance.node}"


async def mend_for_ever(registrar: Registrar, consul_node: str, every_seconds: float) -> None:
    """Compare and mend, until cancelled; Consul's absence is waited out. The catalog has its turn more seldom.

    What the local agent has is asked of the machine itself, and the catalog of servers that all nodes have in common.
    """
    for turn in itertools.count(1):
        await asyncio.sleep(every_seconds)
        try:
            await registrar.mend_agent()
            if registrar.in_doubt or turn % CATALOG_EVERY == 0:
                await registrar.mend_catalog(consul_node)
        except CitadelError:
            continue
