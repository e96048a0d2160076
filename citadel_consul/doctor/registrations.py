"""Ghosts on the Consul agent that answers: who registered them, whether anybody answers for them, taking them out."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Collection, Mapping

from citadel_consul.api.reading import read_stack
from citadel_consul.backends import procfs
from citadel_consul.consul.catalog import CRITICAL, ServiceEntry
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.finding import Finding, Report, Severity
from citadel_consul.core.ghosts import Ghost, Registered, Residents, find_ghosts
from citadel_consul.core.lifecycle import Observed
from citadel_consul.core.model import Instance
from citadel_consul.core.names import is_label
from citadel_consul.doctor.site import Site
from citadel_consul.errors import PermissionDenied
from citadel_consul.store.state import instance_of

CODE = "ghost-registration"


async def examine_registrations(site: Site) -> Report:
    """What citadel registered on this Consul agent and no process stands behind."""
    if site.agent is None:
        return Report("registrations", unknown="the token may not read the Consul agent")
    registered = await _registered(site.client)
    stacks = {name: await _residents(site, name) for name in {one.stack for one in registered if not one.role}}
    hidden = sorted(name for name, residents in stacks.items() if residents is None)
    told = {name: residents for name, residents in stacks.items() if residents is not None}
    known = tuple(one for one in registered if one.role or one.stack in told)
    ghosts = find_ghosts(known, told, site.agent.node)
    summary = f"{len(registered)} of citadel's on the Consul agent of {site.agent.node}, {len(ghosts)} of them ghosts"
    if hidden:
        summary += f"; not looked at, because the token may not read them: stack {', '.join(hidden)}"
    return Report("registrations", summary, tuple(_finding(site.client, ghost) for ghost in ghosts))


async def remove(client: ConsulClient, finding: Finding) -> None:
    """Take out a ghost through the Consul agent that has it."""
    await client.deregister_service(finding.place)


def _finding(client: ConsulClient, ghost: Ghost) -> Finding:
    place = ghost.registered.id
    command = shlex.join(["consul", "services", "deregister", f"-http-addr={client.address}", f"-id={place}"])
    remedy = "take it out through the Consul agent that has it: what is removed from the catalog comes back"
    return Finding(CODE, Severity.ERROR, place, ghost.why, remedy, command)


async def _registered(client: ConsulClient) -> tuple[Registered, ...]:
    checks = (await client.agent_checks()).values()
    critical = {check.service_id for check in checks if check.status == CRITICAL}
    found = [_of(entry, passing=entry.id not in critical) for entry in (await client.agent_services()).values()]
    return tuple(sorted((one for one in found if one is not None), key=lambda one: one.id))


def _of(entry: ServiceEntry, *, passing: bool) -> Registered | None:
    """An entry as citadel's own; None if a node agent or a role of citadel did not make it."""
    role = entry.meta.get("citadel-role", "")
    if role:
        return Registered(entry.id, entry.meta.get("citadel-stack-name", ""), "", entry.name, role, passing)
    stack = entry.meta.get("citadel-stack", "")
    instance = instance_of(stack, entry.id)
    if instance is None or not all(map(is_label, (stack, *instance))):
        return None
    return Registered(entry.id, stack, instance.node, instance.service, passing=passing)


async def _residents(site: Site, stack: str) -> Residents | None:
    """Who answers for a stack; None where the token may not see it, which is no reason to believe in ghosts."""
    try:
        state = await read_stack(site.client, stack, site.defaults)
        for node in {record.node for record in state.agents.values.values()} or {site.settings.node}:
            # A listing leaves out what may not be seen; a key by its name is refused.
            await site.client.kv_get(state.keys.agent(node))
            await site.client.kv_get(state.keys.observed_of(node))
    except PermissionDenied:
        return None
    snapshot = state.snapshot()
    known = bool(snapshot.specs or state.agents.values or snapshot.observed)
    agents = {record.node: record.consul_node for record in state.agent_records()}
    here = {r.node for r in state.agents.values.values() if r.home.partition(":")[0] == socket.gethostname()}
    return Residents(known, agents, snapshot.observed, _ended(snapshot.observed, here))


def _ended(observed: Mapping[Instance, Observed], here: Collection[str]) -> frozenset[Instance]:
    """The instances on the nodes that are ``here``, on this machine, whose process does not exist."""
    return frozenset(
        instance
        for instance, seen in observed.items()
        if instance.node in here and seen.pid is not None and not procfs.exists(seen.pid)
    )
