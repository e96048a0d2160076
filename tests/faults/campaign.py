"""Rounds of random faults, drawn from a seed, during operations; after each, everything is held against the invariants.

A round: an operation or two are requested; at random moments after that, faults strike; then all faults are taken
away, and everything must come to rest within a bound: the operations have ended, each instance is what is wanted of
it, the catalog shows what runs. Several stacks (lanes) share one Consul cluster and are struck side by side, since
most of a round is waiting. What a round does depends on the seed and its number alone; what comes of it, on the machine
as well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from cluster import Cluster, Member
from consul_proxy import Trap
from kv_audit import Audit
from roles import Crew, Role, spread
from verdict import Verdict, judge, unrest

from citadel_consul.core.model import Edge, Strength
from citadel_consul.core.operation import Kind
from citadel_consul.errors import TemporaryError

REST_SECONDS = 120.0
"""How long everything may take to come to rest, counted from the moment at which the last fault was taken away."""
AGAIN_SECONDS = 0.1
ALLOWED_SECONDS = 90.0
"""How long a start or a stop may take: no fault lasts as long, so no operation has a reason to fail."""

PLACES = {
    "db": ("n1",),
    "cache": ("n2",),
    "queue": ("n1", "n2"),
    "seed": ("n1",),
    "api": ("n2",),
    "worker": ("n1", "n2"),
    "web": ("n1", "n2"),
    "report": ("n1",),
}
EDGES = (
    Edge("api", "db"),
    Edge("api", "cache"),
    Edge("api", "seed", strength=Strength.MILESTONE),
    Edge("worker", "db"),
    Edge("worker", "queue", min_instances=1),
    Edge("web", "api"),
    Edge("web", "cache", strength=Strength.SOFT),
    Edge("report", "worker"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """An operation to ask for; ``cancelled_after`` is how many seconds later, if at all, it is asked to stop."""

    kind: Kind
    targets: tuple[str, ...]
    cascade: bool
    cancelled_after: float | None

    def __str__(self) -> str:
        cancelled = "" if self.cancelled_after is None else f" (cancelled after {self.cancelled_after:.2f} s)"
        return f"{self.kind} {' '.join(self.targets)}{' --cascade' * self.cascade}{cancelled}"


@dataclass(frozen=True, slots=True)
class Fault:
    """``what`` strikes ``whom`` (a number, taken modulo of how many there are) ``after`` seconds, for ``seconds``."""

    what: str
    whom: int
    after: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Round:
    """One round, as the seed has it."""

    number: int
    requests: tuple[Request, ...]
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        asked = ", ".join(str(request) for request in self.requests)
        struck = ", ".join(f"{f.what} #{f.whom} after {f.after:.2f} s for {f.seconds:.2f} s" for f in self.faults)
        return f"round {self.number}: {asked}; {struck}"


ROLE_FAULTS = ("kill-leader", "kill-agent", "kill-at-write", "pause-leader", "pause-agent", "silence", "cut", "slow")
CLUSTER_FAULTS = (
    "lose-server", "lose-consul-leader", "pause-server", "lose-client", "pause-client", "wipe-client", "lose-quorum",
)  # fmt: skip


def draw(seed: str, number: int) -> Round:
    """The round of that number."""
    random = Random(f"{seed}/{number}")
    requests = tuple(_request(random) for _ in range(random.choice((1, 1, 1, 2))))
    faults = [_role_fault(random) for _ in range(random.choice((1, 1, 2, 3)))]
    if random.random() < 0.25:
        faults.append(
            Fault(random.choice(CLUSTER_FAULTS), random.randrange(12), random.random(), 0.3 + 2 * random.random())
        )
    return Round(number, requests, tuple(faults))


def _request(random: Random) -> Request:
    kind = random.choice((Kind.STARTUP, Kind.STARTUP, Kind.SHUTDOWN, Kind.RESTART))
    targets = ("all",) if random.random() < 0.6 else (random.choice(list(PLACES)),)
    cascade = kind is Kind.SHUTDOWN or random.random() < 0.5
    return Request(kind, targets, cascade, cancelled_after=0.5 * random.random() if random.random() < 0.1 else None)


def _role_fault(random: Random) -> Fault:
    what = random.choice(ROLE_FAULTS) if random.random() > 0.03 else "freeze"  # seldom: it lasts for ten seconds
    longest = 6.5 if random.random() < 0.05 else 2.5  # now and then past every TTL
    return Fault(what, random.randrange(12), 0.6 * random.random(), 0.2 + longest * random.random())


@dataclass
class Lane:
    """One stack under faults, with its crew, and what is held against it."""

    cluster: Cluster
    crew: Crew
    cluster_lock: threading.RLock
    audit: Audit = field(default_factory=Audit)
    requested: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    killed: list[Role] = field(default_factory=list)

    def prepare(self) -> None:
        """Start the processes and write the stack."""
        clients = [self.cluster.clients[node] for node in ("n1", "n2")]
        consuls = [*clients, self.cluster.servers[2]]
        for number, consul in enumerate(consuls, 1):
            self.crew.orchestrator(f"o{number}", consul.address)
        for consul in clients:
            self.crew.agent(consul.node, consul.address)
        world = self.crew.world
        allowed = {"start_timeout_seconds": ALLOWED_SECONDS, "stop_timeout_seconds": ALLOWED_SECONDS}
        specs = [spread(world, name, nodes, **allowed) for name, nodes in PLACES.items()]
        world.apply(specs, EDGES)
        self.crew.until_manned()

    def play(self, round_: Round) -> Verdict:
        """Play a round; returns what it broke."""
        strikes = [fault for fault in round_.faults if fault.what in CLUSTER_FAULTS]
        if not strikes:
            return self._play(round_)
        with self.cluster_lock:  # one fault of Consul at a time, so that its quorum is lost only on purpose
            return self._play(round_)

    def _play(self, round_: Round) -> Verdict:
        world, began = self.crew.world, time.monotonic()
        self.killed.clear()
        asked = [world.request(r.kind, *r.targets, cascade=r.cascade) for r in round_.requests]
        self.requested += asked
        start = time.monotonic()
        ends: list[tuple[float, Callable[[], object]]] = [
            (start + request.cancelled_after, partial(world.cancel, operation_id))
            for request, operation_id in zip(round_.requests, asked, strict=True)
            if request.cancelled_after is not None
        ]
        for fault in sorted(round_.faults, key=lambda fault: fault.after):
            _sleep_until(start + fault.after, ends)
            ends.append((time.monotonic() + fault.seconds, self._strike(fault)))
        _sleep_until(float("inf"), ends)
        verdict = self.finish()
        self.log.append(f"{round_}: {time.monotonic() - began:.1f} s, {verdict.outcome(asked)}")
        return verdict

    def finish(self) -> Verdict:
        """Take all faults of the processes away, wait for rest, and judge."""
        died = self._died_by_themselves()
        self.crew.heal()
        reason = self._come_to_rest()
        self.audit.look(self.crew.world)
        verdict = judge(self.crew.world, PLACES, EDGES, self.audit, self.requested)
        verdict.broken += died
        if reason is not None:
            verdict.broken.append(f"not at rest after {REST_SECONDS:g} s: {reason}")
        return verdict

    def _come_to_rest(self) -> str | None:
        """Wait until nothing moves any more; returns what still does after too long."""
        deadline = time.monotonic() + REST_SECONDS
        while (reason := unrest(self.crew, PLACES)) is not None:
            if not self.cluster_lock.acquire(blocking=False):  # another lane has Consul fail: that is no rest for us
                deadline = time.monotonic() + REST_SECONDS
            else:
                self.cluster_lock.release()
            if time.monotonic() > deadline:
                return reason
            time.sleep(0.1)
        return None

    def _died_by_themselves(self) -> list[str]:
        return [
            f"{role.name} ended by itself with status {role.process.popen.returncode}:\n{role.log[-1500:]}"
            for role in self.crew.roles
            if not role.process.alive and role not in self.killed
        ]

    # --- faults -------------------------------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> Callable[[], None]:
        """Begin a fault; returns what ends it."""
        if fault.what in CLUSTER_FAULTS:
            return self._strike_cluster(fault)
        roles = self.crew.agents if fault.what.endswith("agent") else self.crew.roles
        role = roles[fault.whom % len(roles)]
        if fault.what.endswith("leader"):
            role = self._leader() or role
        return self._strike_role(fault.what.split("-")[0], fault, role)

    def _strike_role(self, what: str, fault: Fault, role: Role) -> Callable[[], None]:
        if what == "kill":
            self.killed.append(role)
            if fault.what == "kill-at-write":
                role.proxy.trap = Trap(
                    role.proxy.writes + 1 + fault.whom % 4, bool(fault.whom % 2), role.process.popen.kill
                )
                return lambda: None
            role.kill()
            return role.start
        if what == "pause":
            process = role.process
            process.pause()
            return process.resume
        if what == "silence":
            role.proxy.silence()
            return role.proxy.speak
        if what == "slow":
            role.proxy.delay_seconds = 0.3
            return lambda: setattr(role.proxy, "delay_seconds", 0.0)
        if what == "freeze":
            role.proxy.freeze()
        else:
            role.proxy.cut()
        return lambda: None

    def _strike_cluster(self, fault: Fault) -> Callable[[], None]:
        if fault.what == "lose-quorum":
            self.cluster.lose_quorum()
            return self.cluster.heal
        members: Sequence[Member] = self.cluster.servers
        if fault.what.endswith("client"):
            members = list(self.cluster.clients.values())
        member = self.cluster.leader() if "leader" in fault.what else members[fault.whom % len(members)]
        if fault.what.startswith("pause"):
            member.suspend()
            return self.cluster.heal
        member.kill()
        if fault.what.startswith("wipe"):
            member.wipe()
        return self.cluster.heal

    def _leader(self) -> Role | None:
        record = self.crew.world.glimpse_of_leader()  # it may be us who keep Consul from answering
        return next((role for role in self.crew.orchestrators if record and role.node == record["node"]), None)


def _sleep_until(moment: float, ends: list[tuple[float, Callable[[], object]]]) -> None:
    """Sleep, and do what is due meanwhile: cancel, and end faults. For ever means until all that is done."""
    while ends and min(end for end, _ in ends) <= moment:
        ends.sort(key=lambda pair: pair[0])
        end, finish = ends.pop(0)
        time.sleep(max(0.0, end - time.monotonic()))
        try:
            finish()
        except TemporaryError:  # what ends the fault of Consul that is the reason may be behind it in this very list
            ends.append((time.monotonic() + AGAIN_SECONDS, finish))
    if moment != float("inf"):
        time.sleep(max(0.0, moment - time.monotonic()))
