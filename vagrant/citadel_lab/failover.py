"""How long the stack is without a leader when the node of its orchestrator is cut off from all others.

Nobody is refused a connection then, and the leader's own Consul agent cannot tell the servers that its check has run
out: what frees the lock is Serf, which gives the silent node up. If the node is the Consul leader as well, Raft has to
elect another one first. The clock runs from just before the packets are dropped until another node's Consul shows the
event that the successor writes, its first write under the fence.
"""

from __future__ import annotations

import base64
import json
import time

from . import lifecycle
from .cluster import ask, can_lose_a_server, citadel_leader, consul_leader, wait_until
from .errors import LabError
from .machines import Machines
from .topology import Node, Topology

BOUND_SECONDS = 12.0
GIVE_UP_SECONDS = 60.0
WHOLE_SECONDS = 60.0
LOOK_SECONDS = 0.05


def cut_off_leader(topology: Topology, machines: Machines) -> tuple[float, bool]:
    """Cut off the stack's leader, wait for the successor, heal; returns the seconds and whether it led Consul too.

    Raises LabError if nobody leads, or nobody takes over.
    """
    consul = consul_leader(topology)
    name = citadel_leader(consul, topology.stack)
    if name is None:
        raise LabError(f"nobody leads the stack {topology.stack}")
    leader = topology.node(name)
    others = tuple(node for node in topology.nodes if node != leader)
    servers = tuple(node for node in topology.servers if node != leader)
    known = elections(topology, servers)
    began = time.monotonic()
    machines.execute(leader, ["lab-partition", "cut", *(node.address for node in others)])
    try:
        wait_until(
            f"another node than {name} leads the stack",
            lambda: bool(elections(topology, servers) - known),
            GIVE_UP_SECONDS,
            LOOK_SECONDS,
        )
        seconds = time.monotonic() - began
    finally:
        lifecycle.heal([leader], machines)
    wait_until("Consul could lose another server", lambda: can_lose_a_server(topology), WHOLE_SECONDS)
    return seconds, consul == leader


def elections(topology: Topology, servers: tuple[Node, ...]) -> frozenset[str]:
    """The keys of the events that tell of a new leader of the stack, as the first server that answers has them."""
    for server in servers:
        answer = ask(server, f"kv/citadel/{topology.stack}/events?recurse")
        if isinstance(answer, list):
            return frozenset(str(entry["Key"]) for entry in answer if _tells_of_a_leader(str(entry["Value"])))
    return frozenset()


def _tells_of_a_leader(value: str) -> bool:
    try:
        return bool(json.loads(base64.b64decode(value)).get("kind") == "leader-elected")
    except (ValueError, AttributeError):
        return False
