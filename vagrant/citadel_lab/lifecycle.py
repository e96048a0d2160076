"""Making the lab, bringing it up to date, removing it. Every step finds out what is there, so each can be repeated."""

from __future__ import annotations

import ipaddress
import json
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from . import layout
from .cluster import all_alive, wait_until
from .command import find_program, run
from .engine import engine_answers, ensure_engine, stop_engine
from .errors import LabError, UsageError
from .host import Report, ensure_host
from .image import ensure_base, ensure_image, remove_images
from .machines import ABSENT, PAUSED, RUNNING, STOPPED, Machines, noted_machines
from .payload import CHECKSUM, build_payload
from .topology import SUBNET_VARIABLE, Node, Topology
from .vagrant import vagrant

WHOLE_SECONDS = 90.0


def prepare(topology: Topology, report: Report, image: bool = True) -> str:
    """Have all that ``vagrant up`` needs; returns the payload's checksum.

    Without ``image`` the docker provider's image is not built: nodes that exist need none.
    """
    other = {note.parent.name for note in noted_machines()} - {topology.provider}
    if other:
        raise UsageError(f"the lab runs under {other.pop()}: bin/lab down removes it")
    _ensure_tools(topology, report)
    if topology.provider != "docker" or not image:
        return build_payload(report)
    with ThreadPoolExecutor(max_workers=1) as pool:  # the two need nothing of each other
        base = pool.submit(ensure_base, topology.suite, report)
        payload = build_payload(report)
        ensure_image(base.result(), payload, report)
    return payload


def up(topology: Topology, machines: Machines, report: Report) -> None:
    """Bring every node up, with what this checkout holds, and wait until Consul sees them all."""
    _ensure_tools(topology, report)
    absent = not noted_machines() or ABSENT in machines.states().values()
    payload = prepare(topology, report, image=absent)
    states = machines.states()
    for node in topology.nodes:
        if states[node.name] == PAUSED:
            machines.resume(node)
    if any(state in (ABSENT, STOPPED) for state in states.values()):
        refuse_taken_subnet(topology)
        report(f"booting {len(topology.nodes)} nodes ({topology.provider})")
        vagrant(["up", f"--provider={topology.provider}"])
    update(topology, machines, payload, report)
    heal(topology.nodes, machines)
    report("waiting until Consul has a leader that sees all nodes")
    wait_until("Consul has a leader that sees all nodes alive", lambda: all_alive(topology), WHOLE_SECONDS)


def update(topology: Topology, machines: Machines, payload: str, report: Report) -> None:
    """Provision again the nodes that were provisioned with an older payload; their services run on meanwhile."""

    def stale(node: Node) -> bool:
        stamp = machines.execute(node, ["cat", f"/var/lib/citadel-lab/{CHECKSUM}"], check=False)
        return stamp.stdout.strip() != payload

    with ThreadPoolExecutor(max_workers=len(topology.nodes)) as pool:
        old = [node for node, is_old in zip(topology.nodes, pool.map(stale, topology.nodes), strict=True) if is_old]
        if not old:
            return
        report(f"bringing up to date: {', '.join(node.name for node in old)}")
        if topology.provider != "docker":  # containers have the payload mounted, virtual machines a copy
            vagrant(["rsync", *(node.name for node in old)])
        list(pool.map(lambda node: machines.execute(node, ["/opt/lab/provision/all.sh"]), old))


def heal(nodes: Iterable[Node], machines: Machines) -> None:
    """Undo every cut of these nodes; one that does not run has none, since a cut ends with its machine."""
    states = machines.states()
    for node in nodes:
        if states[node.name] == RUNNING:
            machines.execute(node, ["lab-partition", "heal"])


def down(topology: Topology, nodes: Sequence[Node], machines: Machines, report: Report, everything: bool) -> None:
    """Remove the machines of these nodes; ``everything``: images, caches and the lab's own dockerd as well."""
    if noted_machines():
        if topology.provider == "docker":
            ensure_engine(report)
        _destroy(nodes, machines, report)
        report(f"removed: {', '.join(node.name for node in nodes)}")
    else:
        report("no lab is here")
    if everything:
        if topology.provider == "docker" and engine_answers():
            for tag in remove_images():
                report(f"removed the image {tag}")
        if stop_engine():
            report("stopped the dockerd that the lab had started")
        # The lock is held by this very run, and the next one opens it again.
        for path in layout.STATE.glob("*"):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()


def refuse_taken_subnet(topology: Topology) -> None:
    """Raise LabError if this machine already has a route into the lab's network that is not the lab's own."""
    if noted_machines() or find_program("ip") is None:
        return
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]).stdout or "[]")
    taken = overlapping(topology.subnet, routes)
    if taken and not _is_left_over(topology):
        raise LabError(
            f"this machine already reaches {taken}, which overlaps with the lab's {topology.subnet}: "
            f"set {SUBNET_VARIABLE} to a private /24 that is free"
        )


def overlapping(subnet: ipaddress.IPv4Network, routes: Sequence[dict[str, object]]) -> str | None:
    """The first route (``ip -json route``) to a network that overlaps with ``subnet``; the default route is none."""
    for route in routes:
        if route.get("type") in ("local", "broadcast") or route.get("dst") == "default":
            continue
        network = ipaddress.ip_network(str(route["dst"]), strict=False)
        if network.prefixlen > 0 and network.overlaps(subnet):
            return f"{network} through {route.get('dev', 'a gateway')}"
    return None


def summary(topology: Topology) -> list[str]:
    """What to look at next."""
    first, client = topology.servers[0], next(node for node in topology.nodes if node.role == "client")
    return [
        f"Consul UI    http://{first.address}:8500/ui/",
        f"Consul API   http://{first.address}:8500/v1/   (on every node)",
        f"ssh          bin/lab ssh {client.name} getent hosts consul.service.consul",
        "More         bin/lab status · bin/lab --help · docs/lab.md",
    ]


def _ensure_tools(topology: Topology, report: Report) -> None:
    ensure_host(topology.provider, report)
    if topology.provider == "docker":
        ensure_engine(report)


def _destroy(nodes: Sequence[Node], machines: Machines, report: Report) -> None:
    states = machines.states()
    there = [node for node in nodes if states[node.name] != ABSENT]
    report(f"removing {', '.join(node.name for node in there) or 'what is left'}")
    for node in there:
        if states[node.name] == PAUSED:  # a frozen machine cannot be ended
            machines.resume(node)
        if states[node.name] != STOPPED:  # what is removed need not be shut down in order
            machines.cut_power(node)
    vagrant(["destroy", "--force", *(node.name for node in nodes)])
    states = machines.states()
    left = [node.name for node in nodes if states[node.name] != ABSENT]
    if left:
        raise LabError(f"still there: {', '.join(left)}; see {layout.VAGRANT_LOG}")


def _is_left_over(topology: Topology) -> bool:
    """Whether the network is one that Vagrant's docker provider made for this subnet before, and left behind."""
    if topology.provider != "docker":
        return False
    names = run(["docker", "network", "ls", "--format", "{{.Name}}"]).stdout.split()
    return f"vagrant_network_{topology.subnet}" in names
