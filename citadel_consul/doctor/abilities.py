"""What one can do here, and the rights in Consul that each takes: the policies of ``consul.d/acl``, as questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.identity import Right
from citadel_consul.store.keys import Keys

LOOK = "look"


@dataclass(frozen=True, slots=True)
class Ability:
    """Something that a token may be for. ``allowed`` is None where Consul cannot be asked; ``missing`` are rights."""

    name: str
    what: str
    allowed: bool | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Need:
    name: str
    what: str
    rights: tuple[Right, ...]


async def abilities_of(client: ConsulClient, stack: str, node: str, consul_node: str) -> tuple[Ability, ...]:
    """What the client's token is good for. Raises PermissionDenied if Consul does not know the token."""
    needs = _needs(Keys(stack), node, consul_node)
    wanted = tuple(dict.fromkeys(right for need in needs for right in need.rights))
    allowed = await client.allowed(wanted)
    return tuple(_ability(need, allowed) for need in needs)


def _ability(need: _Need, allowed: Mapping[Right, bool] | None) -> Ability:
    if allowed is None:
        return Ability(need.name, need.what)
    missing = tuple(str(right) for right in need.rights if not allowed[right])
    return Ability(need.name, need.what, not missing, missing)


def _needs(keys: Keys, node: str, consul_node: str) -> tuple[_Need, ...]:
    read = tuple(Right(kind, "read", segment) for kind, segment in (("key", keys.root), ("node", consul_node)))
    read += tuple(Right(kind, "read", consul_node) for kind in ("session", "agent"))
    session = Right("session", "write", consul_node)
    progress = (keys.desired, keys.operations, keys.steps, keys.incidents, keys.notices, keys.events, keys.stats)
    agents = (keys.agent(node), keys.observed_of(node), keys.events)
    return (
        _Need(LOOK, "look at the stack", (*read, Right("service", "read", "consul"))),
        _Need("describe", "write specs and edges", _writes(keys.specs, keys.edges)),
        _Need("operate", "request operations", _writes(keys.operations)),
        _Need("hold", "hold services, nodes, the stack", _writes(keys.hold("stack", ""))),
        _Need("hand-over", "have another orchestrator lead", _writes(keys.handover)),
        _Need(
            "orchestrate",
            "be an orchestrator",
            (*_writes(keys.leader, *progress), session, Right("service", "write", "citadel-orchestrator")),
        ),
        _Need(
            "run-agent",
            f"be the node agent of {node}",
            (*_writes(*agents), session, Right("service", "write", "citadel-agent")),
        ),
    )


def _writes(*keys: str) -> tuple[Right, ...]:
    return tuple(Right("key", "write", key) for key in keys)
