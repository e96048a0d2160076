"""`bin/lab test`: boots the whole lab, tries what it is for, breaks it in each way it can, and says how long all took.

Every check looks at the running lab from outside or from within a node; none of them knows how it was made.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from . import lifecycle
from .cluster import can_lose_a_server, consul_leader, members, wait_until
from .errors import LabError, UsageError
from .failover import BOUND_SECONDS, cut_off_leader
from .host import Report
from .machines import Machines, noted_machines
from .status import look, table
from .topology import UNITS, Node, Topology

STACK_FILE = "/opt/lab/stack.yaml"
GATEWAY = "http://api-gateway.service.consul:8080/"

# What each change may take. Serf gives a silent node up after some seconds; raft elects within two.
ELECTION_SECONDS = 20.0
DETECTION_SECONDS = 40.0
REJOIN_SECONDS = 40.0
SERVICE_SECONDS = 60.0
STEADY_SECONDS = 3.0
JOURNAL_LINES = "15"


def trial(topology: Topology, machines: Machines, report: Report, keep: bool, cuts: int = 1) -> int:
    """Run the trial; returns the exit status. The lab is removed afterwards, unless ``keep``, and on failure as well.

    ``cuts`` says how often the leader's node is cut off. Raises UsageError if a lab is there already: the trial
    breaks what it runs on.
    """
    if noted_machines():
        raise UsageError("a lab is running, and the trial would break it: bin/lab down first")
    lab = Trial(topology, machines, cuts)
    failed = False
    try:
        lab.timed("up", lambda: lifecycle.up(topology, machines, report), report)
        for name, check in lab.checks():
            lab.timed(name, check, report)
    except LabError as error:
        failed = True
        report(f"FAILED: {error}")
        print(lab.evidence(), flush=True)
    finally:
        if not keep:
            lab.timed("down", lambda: lifecycle.down(topology, topology.nodes, machines, report, False), report)
    print("\n".join(["", *(f"{seconds:7.1f} s  {name}" for name, seconds in lab.times)]))
    if lab.cuts:
        print(f"\nleader's node cut off until its successor wrote: {lab.cuts_told()}")
    print(f"\n{len(lab.times) - failed} passed, {int(failed)} failed")
    return int(failed)


class Trial:
    """The checks, in the order in which they are made."""

    def __init__(self, topology: Topology, machines: Machines, count_of_cuts: int = 1) -> None:
        self.topology = topology
        self.machines = machines
        self.times: list[tuple[str, float]] = []
        self.count_of_cuts = count_of_cuts
        self.cuts: list[tuple[float, bool]] = []
        self.client = next(node for node in topology.nodes if node.role == "client")

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Name and function of each; a function raises LabError if it finds the lab wanting."""
        return [
            ("systemd is PID 1 and runs the units of each node", self.units_run),
            ("Consul DNS answers getent and dig on each node", self.names_resolve),
            ("the stack comes up in order", self.stack_starts),
            ("a request passes through the stack by DNS alone", self.gateway_answers),
            ("a paused Consul leader is replaced", self.paused_leader_is_replaced),
            ("a node that is cut off is noticed, and heals", self.cut_heals),
            ("the leader's node is cut off, and another leads", self.cut_leader_is_replaced),
            ("a killed server node is survived, and returns", self.killed_server_returns),
            ("a node reboots, and its services come back by themselves", self.reboot_restores),
            ("a server node is destroyed, and all still works", self.destroyed_server_is_survived),
        ]

    def timed(self, name: str, check: Callable[[], None], report: Report) -> None:
        """Do it, and note how long it took, whether it went well or not."""
        report(name)
        begin = time.monotonic()
        try:
            check()
        finally:
            self.times.append((name, time.monotonic() - begin))

    def units_run(self) -> None:
        for node in self.topology.nodes:
            first = self.say(node, "ps", "-o", "comm=", "-p", "1")
            if first != "systemd":
                raise LabError(f"PID 1 of {node.name} is {first}")
        wait_until("all units stay active on every node", self._units_stay, SERVICE_SECONDS)

    def names_resolve(self) -> None:
        for node in self.topology.nodes:
            self._resolves(node, "consul", len(self.topology.servers))

    def stack_starts(self) -> None:
        self.say(self.client, "citadel", "apply", STACK_FILE)
        self.say(self.client, "citadel", "up")
        for node in self.topology.nodes:
            self._resolves(node, "redis", 1)

    def gateway_answers(self) -> None:
        """Ask the gateway from a client node; through its dependencies the request visits the whole graph."""
        wait_until("the gateway answers, with all that it needs", self._gateway_ok, SERVICE_SECONDS)

    def paused_leader_is_replaced(self) -> None:
        leader = self._leader()
        self.machines.execute(leader, ["systemctl", "kill", "--kill-whom=main", "--signal=SIGSTOP", UNITS["consul"]])
        wait_until(f"another server than {leader.name} leads", lambda: self._other_leads(leader), ELECTION_SECONDS)
        self.machines.execute(leader, ["systemctl", "kill", "--kill-whom=main", "--signal=SIGCONT", UNITS["consul"]])
        self._whole()

    def cut_heals(self) -> None:
        others = [node.address for node in self.topology.nodes if node != self.client]
        self.machines.execute(self.client, ["lab-partition", "cut", *others])
        wait_until(f"Consul sees {self.client.name} failed", lambda: self._failed(self.client), DETECTION_SECONDS)
        lifecycle.heal([self.client], self.machines)
        self._whole()
        self.gateway_answers()

    def cut_leader_is_replaced(self) -> None:
        for _ in range(self.count_of_cuts):
            self.cuts.append(cut_off_leader(self.topology, self.machines))
        self.gateway_answers()
        slow = [seconds for seconds, _ in self.cuts if seconds > BOUND_SECONDS]
        if slow:
            raise LabError(f"the stack was without a leader for {max(slow):.1f} s, more than {BOUND_SECONDS:g} s")

    def killed_server_returns(self) -> None:
        leader = self._leader()
        self.machines.cut_power(leader)
        wait_until(f"another server than {leader.name} leads", lambda: self._other_leads(leader), ELECTION_SECONDS)
        self.gateway_answers()
        self.machines.start(leader)
        self._whole()

    def reboot_restores(self) -> None:
        self.machines.reboot(self.client)
        self._whole()
        wait_until("all units stay active on every node", self._units_stay, SERVICE_SECONDS)
        self._resolves(self.client, "consul", len(self.topology.servers))
        self.gateway_answers()

    def destroyed_server_is_survived(self) -> None:
        gone = self.topology.servers[-1]
        lifecycle.down(self.topology, [gone], self.machines, lambda _: None, everything=False)
        wait_until(f"another server than {gone.name} leads", lambda: self._other_leads(gone), ELECTION_SECONDS)
        self.say(self.client, "getent", "hosts", "redis.service.consul")
        self.gateway_answers()

    def say(self, node: Node, *words: str) -> str:
        """What a command prints on a node. Raises LabError if it fails."""
        return self.machines.execute(node, words).stdout.strip()

    def cuts_told(self) -> str:
        """What was measured when the leader was cut off; a star marks the cuts that hit the Consul leader as well."""
        each = sorted(self.cuts)
        told = ", ".join(f"{seconds:.1f}{'*' if both else ''}" for seconds, both in each)
        return f"median {each[len(each) // 2][0]:.1f} s, most {each[-1][0]:.1f} s ({told}; *: it led Consul as well)"

    def evidence(self) -> str:
        """What helps to understand a failure: the state of all, and the last words of each unit."""
        parts = [table(look(self.topology, self.machines))]
        states = self.machines.states()
        for node in self.topology.nodes:
            for unit in node.units if states[node.name] == "running" else ():
                words = ["journalctl", "--no-pager", "-o", "cat", "-n", JOURNAL_LINES, "-u", unit]
                parts.append(f"\n== {node.name} {unit}\n{self.machines.execute(node, words, check=False).stdout}")
        return "\n".join(parts)

    def _leader(self) -> Node:
        wait_until("Consul has a leader", lambda: consul_leader(self.topology) is not None, ELECTION_SECONDS)
        leader = consul_leader(self.topology)
        if leader is None:
            raise LabError("Consul lost its leader")
        return leader

    def _other_leads(self, than: Node) -> bool:
        leader = consul_leader(self.topology)
        return leader is not None and leader != than

    def _failed(self, node: Node) -> bool:
        return members(consul_leader(self.topology)).get(node.name) == "failed"

    def _whole(self) -> None:
        wait_until("Consul could lose a server", lambda: can_lose_a_server(self.topology), REJOIN_SECONDS)

    def _units_stay(self) -> bool:
        """Active, and with the same processes a while later: a unit in a crash loop is active now and then."""
        before = self._main_processes()
        time.sleep(STEADY_SECONDS)
        rows = look(self.topology, self.machines)
        active = all(row.units and set(row.units.values()) == {"active"} for row in rows)
        return active and self._main_processes() == before

    def _main_processes(self) -> list[str]:
        words = ["systemctl", "show", "--value", "-p", "MainPID"]
        return [self.say(node, *words, *node.units) for node in self.topology.nodes]

    def _resolves(self, node: Node, service: str, count: int) -> None:
        """The two ways in which programs ask: the C library's, and SRV records for those that want the port."""
        name = f"{service}.service.consul"
        hosts = self.say(node, "getent", "ahostsv4", name)
        addresses = {line.split()[0] for line in hosts.splitlines()}
        records = self.say(node, "dig", "+short", "SRV", name).splitlines()
        if len(addresses) != count or len(records) != count:
            raise LabError(f"{node.name}: {name} should have {count} answers: getent {addresses}, dig {records}")

    def _gateway_ok(self) -> bool:
        words = ["curl", "--silent", "--show-error", "--max-time", "10", GATEWAY]
        done = self.machines.execute(self.client, words, check=False)
        try:
            return done.returncode == 0 and json.loads(done.stdout)["ok"] is True
        except (ValueError, KeyError):
            return False
