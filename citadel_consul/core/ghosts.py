"""Ghosts: registrations of a node that no process stands behind.

A node agent takes out what it does not answer for, within seconds. Ghosts are what is left when there is no such agent
any more: a node that was given another name, a stack that was removed from Consul, a node agent that registers with
another Consul agent now, a machine that lost its processes with its node agent. A node agent that is merely dead leaves
no ghosts: its services run on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from citadel_consul.core.lifecycle import Observed
from citadel_consul.core.model import Instance


@dataclass(frozen=True, slots=True)
class Registered:
    """A registration that citadel made on a Consul agent.

    ``role`` is empty for an instance of a service, else ``agent`` or ``orchestrator``. ``passing``: no check of its own
    is critical.
    """

    id: str
    stack: str
    node: str
    service: str
    role: str = ""
    passing: bool = True


@dataclass(frozen=True, slots=True)
class Residents:
    """Who answers for a stack. ``agents`` are the live node agents, each with the Consul node at which it registers;
    ``ended`` are instances whose process is known to be gone from this machine."""

    known: bool
    agents: Mapping[str, str] = field(default_factory=dict)
    observed: Mapping[Instance, Observed] = field(default_factory=dict)
    ended: frozenset[Instance] = frozenset()


@dataclass(frozen=True, slots=True)
class Ghost:
    """A registration that can go, and why."""

    registered: Registered
    why: str


def find_ghosts(
    registrations: tuple[Registered, ...], stacks: Mapping[str, Residents], consul_node: str
) -> tuple[Ghost, ...]:
    """The ghosts among the ``registrations`` of the Consul agent of ``consul_node``."""
    found = []
    for registered in registrations:
        stack = stacks.get(registered.stack, Residents(known=False))
        why = _role(registered) if registered.role else _instance(registered, stack, consul_node)
        if why:
            found.append(Ghost(registered, why))
    return tuple(found)


def _role(registered: Registered) -> str:
    """Why a role of citadel's own is a ghost: it feeds its check every second or so as long as it lives."""
    return "" if registered.passing else f"the {registered.role} that registered it gives no sign of life"


def _instance(registered: Registered, stack: Residents, consul_node: str) -> str:
    if not stack.known:
        return f"there is no stack {registered.stack!r} in this Consul"
    node = registered.node
    home = stack.agents.get(node)
    if home == consul_node:
        return ""  # its agent looks every few seconds, and takes out what is not its own
    if home is not None:
        return f"the agent of {node} registers its services with the Consul agent of {home} now"
    instance = Instance(registered.service, node)
    observed = stack.observed.get(instance)
    if observed is None:
        return f"no agent answers for {node}, and none has ever reported this service there"
    if not observed.alive:
        return f"no agent answers for {node}, and its last report says {observed.phase}"
    return f"no agent answers for {node}, and its process {observed.pid} is gone" if instance in stack.ended else ""
