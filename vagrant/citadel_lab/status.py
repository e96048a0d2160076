"""`bin/lab status`: one look at every node, and the table that shows it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from .cluster import citadel_leader, consul_leader, members
from .machines import ABSENT, RUNNING, Machines
from .topology import UNITS, Node, Topology

SHORT = {unit: name for name, unit in UNITS.items()}
SEPARATOR = "--\n"
LOOK = """\
systemctl show -p Id,LoadState,ActiveState,MainPID "$@"; echo --; ps -eo pid=,state=; echo --; lab-partition show"""
HEADINGS = ("NODE", "ADDRESS", "MACHINE", "CONSUL", "UNITS", "CUT OFF FROM", "LEADER")


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What is seen of one node. ``units`` maps a unit's short name to systemd's word, such as ``active``."""

    name: str
    address: str
    machine: str
    member: str
    units: Mapping[str, str]
    cut_off_from: tuple[str, ...]
    leads: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """For ``-o json``."""
        return asdict(self)


def look(topology: Topology, machines: Machines) -> list[NodeStatus]:
    """Look at all nodes at once."""
    states = machines.states()
    if set(states.values()) == {ABSENT}:
        return [NodeStatus(node.name, node.address, ABSENT, "-", {}, (), ()) for node in topology.nodes]
    with ThreadPoolExecutor(max_workers=len(topology.nodes)) as pool:
        details = list(pool.map(lambda node: _inside(topology, machines, node, states[node.name]), topology.nodes))
    leader = consul_leader(topology)
    seen = members(leader)
    orchestrator = citadel_leader(leader, topology.stack)
    rows = []
    for node, (units, cut) in zip(topology.nodes, details, strict=True):
        led = {"consul": leader is not None and leader.name == node.name, "citadel": orchestrator == node.name}
        leads = tuple(name for name, it_does in led.items() if it_does)
        member = seen.get(node.name, "-" if leader else "no leader")
        rows.append(NodeStatus(node.name, node.address, states[node.name], member, units, cut, leads))
    return rows


def table(rows: Sequence[NodeStatus]) -> str:
    """The rows for people, columns aligned."""
    cells = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def parse_units(text: str, frozen: Collection[str] = ()) -> dict[str, str]:
    """Read ``systemctl show -p Id,LoadState,ActiveState,MainPID``: blocks of ``Name=value``, one a unit.

    ``frozen`` holds the ids of processes under SIGSTOP, which systemd does not see: to it they are active.
    """
    units = {}
    for block in text.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in values:
            units[SHORT.get(values["Id"], values["Id"])] = _unit_state(values, frozen)
    return units


def _inside(topology: Topology, machines: Machines, node: Node, state: str) -> tuple[dict[str, str], tuple[str, ...]]:
    if state != RUNNING:
        return {}, ()
    done = machines.execute(node, ["sh", "-c", LOOK, "sh", *node.units], check=False)
    shown, processes, addresses = [*done.stdout.split(SEPARATOR), "", ""][:3]
    frozen = [pid for pid, state in (line.split() for line in processes.splitlines()) if state.startswith("T")]
    others = (topology.with_address(address) for address in addresses.split())
    return parse_units(shown, frozen), tuple(other.name for other in others if other)


def _unit_state(values: Mapping[str, str], frozen: Collection[str]) -> str:
    if values.get("LoadState") != "loaded":
        return "not installed"
    return "paused" if values.get("MainPID") in frozen else values["ActiveState"]


def _cells(row: NodeStatus) -> tuple[str, ...]:
    units = " ".join(f"{name}:{state}" for name, state in row.units.items())
    cut = ",".join(row.cut_off_from)
    return (row.name, row.address, row.machine, row.member, units or "-", cut or "-", ",".join(row.leads))
