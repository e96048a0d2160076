"""The nodes of the lab and their addresses, read from lab.json, which the Vagrantfile reads as well."""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path

from . import layout
from .errors import LabError, UsageError

SUBNET_VARIABLE = "CITADEL_LAB_SUBNET"
PROVIDERS = ("docker", "libvirt", "virtualbox")
UNITS = {
    "agent": "citadel-agent.service",
    "consul": "consul.service",
    "orchestrator": "citadel-orchestrator.service",
}


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the lab. ``role`` is Consul's: server or client."""

    name: str
    role: str
    address: str
    orchestrator: bool

    @property
    def units(self) -> tuple[str, ...]:
        """The systemd units that belong on this node, Consul first."""
        names = ("consul", "agent", "orchestrator") if self.orchestrator else ("consul", "agent")
        return tuple(UNITS[name] for name in names)


@dataclass(frozen=True, slots=True)
class Topology:
    """The lab under one provider."""

    provider: str
    subnet: ipaddress.IPv4Network
    suite: str
    stack: str
    nodes: tuple[Node, ...]

    @property
    def servers(self) -> tuple[Node, ...]:
        """The Consul servers."""
        return tuple(node for node in self.nodes if node.role == "server")

    def node(self, name: str) -> Node:
        """The node of that name. Raises UsageError, with the nearest name, if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        names = [node.name for node in self.nodes]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise UsageError(f"no node {name!r}: {hint}")

    def pick(self, names: list[str]) -> tuple[Node, ...]:
        """The nodes of those names, in the lab's order and each once; all nodes if no name is given."""
        wanted = {self.node(name).name for name in names}
        return tuple(node for node in self.nodes if not wanted or node.name in wanted)

    def others(self, node: Node, names: list[str]) -> tuple[Node, ...]:
        """Whom ``node`` is to be cut off from: the named nodes, or all others. Raises UsageError if it names itself."""
        if node.name in names:
            raise UsageError(f"{node.name} cannot be cut off from itself")
        return tuple(other for other in self.pick(names) if other.name != node.name)

    def with_address(self, address: str) -> Node | None:
        """The node that has this address."""
        return next((node for node in self.nodes if node.address == address), None)


def load_topology(provider: str, path: Path = layout.TOPOLOGY) -> Topology:
    """Read lab.json. ``$CITADEL_LAB_SUBNET`` moves the lab to another /24. Raises UsageError if that is none."""
    if provider not in PROVIDERS:
        raise UsageError(f"no provider {provider!r}: there are {', '.join(PROVIDERS)}")
    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LabError(f"cannot read {path}: {error}") from error
    subnet = _subnet(os.environ.get(SUBNET_VARIABLE) or raw["subnets"][provider])
    nodes = tuple(
        Node(entry["name"], entry["role"], str(subnet[entry["host"]]), entry["orchestrator"]) for entry in raw["nodes"]
    )
    return Topology(provider, subnet, raw["suite"], raw["stack"], nodes)


def unit_name(name: str) -> str:
    """The systemd unit that a person means: ``consul``, ``agent``, ``orchestrator``, or any other unit as it is."""
    if name in UNITS:
        return UNITS[name]
    return name if "." in name else f"{name}.service"


def _subnet(text: str) -> ipaddress.IPv4Network:
    try:
        subnet = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise UsageError(f"{SUBNET_VARIABLE}: {error}") from error
    if subnet.prefixlen != 24 or not subnet.is_private:
        raise UsageError(f"{SUBNET_VARIABLE}: {text} is not a private /24, such as 10.77.0.0/24")
    return subnet
