"""What Consul says of the lab, asked over HTTP from the host."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from .errors import LabError
from .topology import Node, Topology

HTTP_PORT = 8500
ANSWER_SECONDS = 2.0
MEMBER_STATES = {0: "none", 1: "alive", 2: "leaving", 3: "left", 4: "failed"}

# The lab's addresses are on this machine: a proxy for the outside has no business with them.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(node: Node, path: str) -> Any:
    """GET ``path`` of the Consul agent on ``node``, decoded; None if the agent gives no usable answer."""
    url = f"http://{node.address}:{HTTP_PORT}/v1/{path}"
    try:
        with _opener.open(url, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)
    except (OSError, ValueError):  # URLError and HTTPError are OSErrors
        return None


def consul_leader(topology: Topology) -> Node | None:
    """The server that leads, as the first server that knows a leader says and that leader confirms."""
    for server in topology.servers:
        answer = ask(server, "status/leader")
        leader = topology.with_address(answer.rpartition(":")[0]) if isinstance(answer, str) and answer else None
        if leader is not None and ask(leader, "status/leader") == answer:
            return leader
    return None


def members(leader: Node | None) -> dict[str, str]:
    """Node name -> ``alive``, ``failed``, ``left`` … as the leader sees it."""
    answer = ask(leader, "agent/members") if leader else None
    return {entry["Name"]: MEMBER_STATES.get(entry["Status"], "unknown") for entry in answer or []}


def citadel_leader(leader: Node | None, stack: str) -> str | None:
    """The node whose orchestrator leads the stack, if its lock is held."""
    answer = ask(leader, f"kv/citadel/{stack}/leader") if leader else None
    if not answer or not answer[0].get("Session"):
        return None
    try:
        return str(json.loads(base64.b64decode(answer[0]["Value"]))["node"])
    except (ValueError, KeyError, TypeError):
        return None


def wait_until(what: str, condition: Callable[[], bool], seconds: float, pause_seconds: float = 0.2) -> float:
    """Wait until the condition holds; returns the seconds it took. Raises LabError, naming ``what``, if it does not."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            raise LabError(f"after {seconds:g} s still not so: {what}")
        time.sleep(pause_seconds)
    return time.monotonic() - begin


def all_alive(topology: Topology) -> bool:
    """Whether there is a leader that sees every node alive."""
    seen = members(consul_leader(topology))
    return all(seen.get(node.name) == "alive" for node in topology.nodes)


def can_lose_a_server(topology: Topology) -> bool:
    """Whether every node is alive and one server more than quorum needs has a vote.

    A server that was silent can have lost its vote meanwhile (Consul's autopilot removes dead servers) and gets it back
    only when it has been stable for ten seconds. Whoever takes away another one before takes the quorum.
    """
    if not all_alive(topology):
        return False
    health = ask_leader(topology, "operator/autopilot/health")  # Consul answers 429, so None, while it is not healthy
    return isinstance(health, dict) and bool(health.get("FailureTolerance", 0) >= 1)


def ask_leader(topology: Topology, path: str) -> Any:
    """GET ``path`` of the Consul leader, decoded; None without a leader or a usable answer."""
    leader = consul_leader(topology)
    return ask(leader, path) if leader is not None else None
