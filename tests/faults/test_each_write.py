"""The leader dies, or is paused, at each of its writes in turn, during a startup and a shutdown of twenty services.

Each time the operation ends as it would have, and nothing is started or stopped twice. A leader that is paused with a
write on its way finds that Consul refuses it: the proxy keeps that write until a successor has acted, lets it through,
and sees the 409.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from checker import violations
from consul_proxy import Hold, Trap
from kv_audit import Audit
from roles import Crew, Role, spread

from citadel_consul.core.model import Edge
from citadel_consul.core.operation import Kind, OperationState

pytestmark = [pytest.mark.consul, pytest.mark.slow]

LAYERS, WIDTH = 4, 5
SERVICES = [f"s{layer}{place}" for layer in range(LAYERS) for place in range(WIDTH)]
EDGES = [
    Edge(f"s{layer}{place}", f"s{layer - 1}{(place + shift) % WIDTH}")
    for layer in range(1, LAYERS)
    for place in range(WIDTH)
    for shift in (0, 1)
]
LEAST_WRITES = 6
"""A startup of four layers has at least so many; a test that found fewer would prove nothing."""


class Ladder:
    """Startup and shutdown by turns, with a fault at the nth write of the leader, n = 1, 2, … until there is none."""

    def __init__(self, crew: Crew, **settings: str) -> None:
        self.crew = crew
        self.audit = Audit()
        self.startups = 0
        crew.agent("n1")
        for number in range(1, 4):
            crew.orchestrator(f"o{number}", **settings)
        crew.world.apply([spread(crew.world, name, ("n1",)) for name in SERVICES], EDGES)
        crew.until_manned()

    def ready(self) -> Role:
        """The leader, once another stands by to follow it; the writes of each are counted from here."""
        world = self.crew.world
        world.until(lambda: world.standbys() >= 2, 30.0, "a standby")
        time.sleep(0.1)  # until it also has its connection to the leader
        leader = self.crew.leader()
        for role in self.crew.orchestrators:
            role.proxy.writes = 0
        return leader

    def check(self, kind: Kind, operation_id: str) -> None:
        """The operation has ended as it would have, and no service has a life more or less than it should."""
        world = self.crew.world
        operation = world.end_of(operation_id, 120.0)
        assert operation.state is OperationState.SUCCEEDED, f"{operation}\n{world.logs()}"
        self.startups += kind is Kind.STARTUP
        running = world.running_pids()
        for service in SERVICES:
            name = f"{service}@n1"
            lives = world.lives(name)
            assert len(lives) == self.startups, f"{name}: {lives} after {self.startups} startups\n{world.logs()}"
            assert running[name] == (lives[-1:] if kind is Kind.STARTUP else []), f"{name}\n{world.logs()}"
        self.audit.look(world)

    def climb(self, strike: Callable[[Kind, int], bool]) -> None:
        """``strike`` does an operation with a fault at its nth write, and says whether there was such a write."""
        nth, struck = 0, {Kind.STARTUP: 0, Kind.SHUTDOWN: 0}
        while nth == max(struck.values()):
            nth += 1
            for kind in struck:  # each rung has both, because a shutdown needs what a startup made
                if strike(kind, nth):
                    struck[kind] = nth
        print(f"struck at {struck[Kind.STARTUP]} writes of a startup and {struck[Kind.SHUTDOWN]} of a shutdown")
        assert min(struck.values()) >= LEAST_WRITES
        assert violations(self.crew.world.chronicle(), EDGES) == []
        assert self.audit.violations() == []


def _kill_at(ladder: Ladder, kind: Kind, nth: int, *, before: bool) -> bool:
    """Kill the leader at its nth write; returns whether there was one."""
    leader = ladder.ready()
    leader.proxy.trap = Trap(nth, before, leader.process.popen.kill)
    ladder.check(kind, ladder.crew.world.request(kind))
    if sprung := leader.proxy.disarm():
        leader.kill()
        leader.start()
    return sprung


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_an_operation_survives_the_death_of_the_leader_at_each_write(crew: Crew, before: bool) -> None:
    ladder = Ladder(crew)
    ladder.climb(lambda kind, nth: _kill_at(ladder, kind, nth, before=before))


def _pause_at(ladder: Ladder, kind: Kind, nth: int) -> bool:
    """Pause the leader with its nth write on the way, until a successor has acted; returns whether there was one."""
    world, leader = ladder.crew.world, ladder.ready()
    epoch = world.until_led()["epoch"]
    hold = leader.proxy.hold = Hold(nth, leader.process.pause)
    operation_id = world.request(kind)
    world.until(lambda: hold.caught.is_set() or world.operation(operation_id).ended)  # type: ignore[union-attr]
    if not hold.caught.is_set():
        leader.proxy.hold = None
        ladder.check(kind, operation_id)
        return False
    world.until(lambda: (found := world.leader()) is not None and found["epoch"] > epoch, 30.0, "a successor")
    successor = ladder.crew.leader()
    world.until(lambda: successor.proxy.writes >= 2, 30.0, "the successor to act")
    status = hold.let_go()
    leader.process.resume()
    assert status == 409, f"Consul let write {nth} of a deposed leader through: {hold.body!r}"
    ladder.check(kind, operation_id)
    return True


def test_no_write_of_a_paused_leader_takes_effect_once_a_successor_has_acted(crew: Crew) -> None:
    ladder = Ladder(crew, CITADEL_LEADER_CHECK_TTL="1s")
    ladder.climb(lambda kind, nth: _pause_at(ladder, kind, nth))
