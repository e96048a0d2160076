"""What decisions count: against an account that the model world keeps of itself, through failovers and lost writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from world import Accidents, Behaviour, World, spec

from citadel_consul.core.actions import Action, SetDesired, WriteStats
from citadel_consul.core.decide import decide
from citadel_consul.core.incident import STACK
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Edge, Instance
from citadel_consul.core.operation import Kind, OperationState
from citadel_consul.core.snapshot import CheckStatus
from citadel_consul.core.stats import Standing, availability, stack_account

WEB, DB = Instance("web", "n1"), Instance("db", "n1")


def _world(**behaviours: Behaviour) -> World:
    known = {Instance(name, "n1"): behaviour for name, behaviour in behaviours.items()}
    return World.of([spec("db"), spec("web"), spec("extra", critical=False)], [Edge("web", "db")], behaviours=known)


def _sums(world: World, service: str) -> tuple[float, float, float]:
    """Up, planned, unplanned seconds."""
    sums = world.stats[service].sums_at(world.now)
    return sums[Standing.UP], sums[Standing.PLANNED], sums[Standing.UNPLANNED]


def _operate(world: World, kind: Kind, *targets: str) -> str:
    operation_id = world.request(kind, *targets)
    world.settle()
    return operation_id


def test_a_failure_is_unplanned_from_the_death_to_the_first_passing_check() -> None:
    world = _world()
    world.lead()
    _operate(world, Kind.STARTUP)  # db is ready at 1 s, web at 2 s
    world.tick(100)
    world.kill(DB)
    world.lead()
    world.tick(7)
    _operate(world, Kind.RECOVER, "db")  # takes a second
    world.tick(10)
    world.lead()
    assert _sums(world, "db") == (111, 1, 8)
    assert world.stats["db"].failures == 1
    assert world.stats["db"].restarts == 1
    assert availability(world.stats["db"], world.now) == pytest.approx(100 * 111 / 119)


def test_downtime_by_order_is_planned_and_counts_against_nobody() -> None:
    world = _world()
    world.lead()
    _operate(world, Kind.STARTUP)
    world.tick(50)
    _operate(world, Kind.RESTART, "web")  # a second to stop, a second to start
    world.tick(50)
    _operate(world, Kind.SHUTDOWN)
    world.tick(1000)
    world.lead()
    up, planned, unplanned = _sums(world, "web")
    assert (up, unplanned) == (100, 0)
    assert planned == world.now - 1000 - 100
    assert availability(world.stats["web"], world.now) == 100
    assert world.stats["web"].restarts == 1


def test_what_waits_for_a_dependency_that_failed_is_down_without_anybody_having_planned_it() -> None:
    world = _world(db=Behaviour(cannot_start=True))
    world.lead()
    _operate(world, Kind.STARTUP)
    world.tick(30)
    world.lead()
    for service in ("db", "web"):
        assert _sums(world, service)[2] == 31  # from the failed start on
    assert availability(world.stats["web"], world.now) == 0


def test_a_start_that_never_becomes_ready_is_planned_until_it_is_given_up() -> None:
    world = _world(web=Behaviour(ready_after=None))
    world.lead()
    _operate(world, Kind.STARTUP)  # db after 1 s; web is given up 10 s later
    world.tick(25)
    world.lead()
    assert _sums(world, "web") == (0, 11, 25)


def test_maintenance_is_planned() -> None:
    world = _world()
    _operate(world, Kind.STARTUP)
    snapshot = replace(world.snapshot(), checks={WEB: CheckStatus.MAINTENANCE})
    (written,) = [
        a.stats for a in decide(snapshot, world.now) if isinstance(a, WriteStats) and a.stats.service == "web"
    ]
    assert written.instances["n1"].standing is Standing.PLANNED


def test_recoveries_are_counted_once_by_how_they_end() -> None:
    world = _world()
    _operate(world, Kind.STARTUP)
    assert world.state(_operate(world, Kind.RECOVER, "db")) is OperationState.SUCCEEDED
    world.behaviours[WEB] = Behaviour(cannot_start=True)
    assert world.state(_operate(world, Kind.RECOVER, "web@n1")) is OperationState.FAILED
    refused = _operate(world, Kind.RECOVER, "nobody")
    assert world.state(refused) is OperationState.FAILED
    found = {name: (s.recoveries_succeeded, s.recoveries_failed) for name, s in world.stats.items() if name != STACK}
    assert found == {"db": (1, 0), "web": (0, 1), "extra": (0, 0)}


def test_the_stack_is_up_while_all_critical_services_are() -> None:
    world = _world()
    world.lead()
    world.tick(500)  # nobody wants it yet: that is no downtime
    world.lead()
    assert stack_account(world.stats) is None
    _operate(world, Kind.STARTUP)
    world.tick(100)
    world.kill(Instance("extra", "n1"))
    world.lead()
    world.tick(100)
    world.kill(DB)
    world.lead()
    world.tick(20)
    _operate(world, Kind.RECOVER, "db")
    world.tick(50)
    _operate(world, Kind.SHUTDOWN)
    world.tick(9)
    world.lead()
    found = stack_account(world.stats)
    assert found is not None
    sums = found.sums_at(world.now)
    assert (sums[Standing.UP], sums[Standing.UNPLANNED]) == (250, 21)
    assert sums[Standing.PLANNED] == 9 + 2  # web and db stop one after the other


def test_what_happens_while_nobody_leads_is_entered_at_its_time() -> None:
    world = _world()
    world.lead()
    _operate(world, Kind.STARTUP)
    world.tick(40)
    world.kill(WEB)
    world.tick(60)
    world.lead()  # the next leader
    assert _sums(world, "web")[0] == 40
    assert _sums(world, "web")[2] == 60
    found = stack_account(world.stats)
    assert found is not None
    assert found.sums_at(world.now)[Standing.UNPLANNED] == 60


def test_a_lost_write_of_the_accounts_is_made_good_by_the_next_look() -> None:
    world = _world()
    world.lead()
    _operate(world, Kind.STARTUP)
    world.kill(DB)
    whole = world.fork()
    whole.request(Kind.RECOVER, "db")
    whole.settle()
    world.request(Kind.RECOVER, "db")
    for _ in range(100):
        actions = world.decide()
        kept = next((n for n, a in enumerate(actions) if isinstance(a, WriteStats)), len(actions))
        world.lead(until=kept)
        world.tick(0.5)
        if all(world.operation(o).ended for o in world.heads):
            break
    world.lead()
    assert world.stats["db"].recoveries_succeeded == whole.stats["db"].recoveries_succeeded == 1
    assert world.stats["db"].restarts == whole.stats["db"].restarts == 1


def test_what_has_not_moved_is_not_looked_at() -> None:
    world = _world()
    _operate(world, Kind.STARTUP)
    world.kill(WEB)
    world.kill(DB)
    snapshot = replace(world.snapshot(), moved=frozenset({"web"}))
    written = [a.stats.service for a in decide(snapshot, world.now) if isinstance(a, WriteStats)]
    assert written == ["web", STACK]
    everything = [a.stats.service for a in decide(world.snapshot(), world.now) if isinstance(a, WriteStats)]
    assert sorted(everything) == sorted(["web", "db", STACK])


def test_a_service_that_is_given_an_order_is_looked_at_in_the_same_turn() -> None:
    world = _world()
    _operate(world, Kind.STARTUP)
    world.request(Kind.RESTART, "web")
    snapshot = replace(world.snapshot(), moved=frozenset())
    written = {a.stats.service: a.stats for a in decide(snapshot, world.now) if isinstance(a, WriteStats)}
    assert written["web"].standing() is Standing.PLANNED


class Ledger:
    """An account of the world's own truth: what each instance is, looked at whenever time is about to move."""

    def __init__(self, world: World) -> None:
        self.seconds: defaultdict[tuple[str, Standing], float] = defaultdict(float)
        self._world = world
        self._tick = world.tick
        world.tick = self.tick  # type: ignore[method-assign]

    def tick(self, seconds: float = 0.0, only: Sequence[str] | None = None) -> None:
        for name in self._world.specs:
            self.seconds[name, self._standing(Instance(name, "n1"))] += seconds
        self._tick(seconds, only)

    def _standing(self, instance: Instance) -> Standing:
        wanted, seen = self._world.desired.get(instance), self._world.observed.get(instance)
        if wanted is None or not (wanted.run or wanted.wanted):
            return Standing.PLANNED
        answered = seen is not None and seen.generation >= wanted.generation
        if wanted.run and answered and seen is not None and seen.phase is Phase.READY:
            return Standing.UP
        head = self._world.heads.get(wanted.operation or "")
        by_order = head is not None and not head.ended and head.kind in (Kind.STARTUP, Kind.RESTART)
        moving = not wanted.run or not answered or (seen is not None and seen.phase is Phase.STARTING)
        return Standing.PLANNED if by_order and moving else Standing.UNPLANNED


def _random_life(seed: int) -> tuple[World, Random]:
    rng = Random(seed)
    names = [f"s{n}" for n in range(5)]
    edges = [Edge(a, b) for i, a in enumerate(names) for b in names[:i] if rng.random() < 0.4]
    behaviours = {
        Instance(name, "n1"): Behaviour(
            ready_after=rng.choice([0.5, 2.0, 2.0, None]), exits_after=rng.choice([None, None, None, 40.0])
        )
        for name in names
    }
    return World.of([spec(name) for name in names], edges, behaviours=behaviours), rng


def _disturb(world: World, rng: Random) -> None:
    kind = rng.choice([Kind.STARTUP, Kind.RESTART, Kind.RECOVER, Kind.SHUTDOWN, None, None])
    if kind is None:
        alive = [instance for instance in world.processes if world.observed[instance].phase is Phase.READY]
        if alive:
            world.kill(rng.choice(alive))
    else:
        world.request(kind, rng.choice([*world.specs, "all"]), cascade=True)


@pytest.mark.parametrize("seed", range(60))
def test_the_accounts_are_those_of_the_world_whatever_happens(seed: int) -> None:
    world, rng = _random_life(seed)
    world.lead()
    ledger = Ledger(world)
    for _ in range(12):
        _disturb(world, rng)
        world.settle()
        world.tick(rng.choice([0.0, 3.0, 17.0]))
        world.lead()
    for name in world.specs:
        expected = {word: ledger.seconds[name, word] for word in Standing}
        assert world.stats[name].sums_at(world.now) == pytest.approx(expected), name
        starts = sum(n for (instance, _), n in world.executions.items() if instance.service == name)
        assert world.stats[name].restarts == max(0, starts - 1)


@pytest.mark.parametrize("seed", range(40))
def test_no_time_is_lost_or_counted_twice_through_crashes_of_leaders(seed: int) -> None:
    world, rng = _random_life(seed)
    world.lead()
    began = world.now
    for _ in range(6):
        _disturb(world, rng)
        Accidents(rng).settle(world, patience_seconds=10_000)
    world.lead()
    tried = (OperationState.SUCCEEDED, OperationState.FAILED)
    for name in world.specs:
        stats = world.stats[name]
        assert sum(stats.sums_at(world.now).values()) == pytest.approx(world.now - began)
        starts = sum(n for (instance, _), n in world.executions.items() if instance.service == name)
        assert stats.restarts <= max(0, starts - 1)
        recoveries = [
            head
            for head in world.heads.values()
            if head.kind is Kind.RECOVER and head.state in tried and head.step_count and head.names(name)
        ]
        assert stats.recoveries_succeeded + stats.recoveries_failed == len(recoveries)


def test_stats_are_written_at_transitions_and_not_by_time() -> None:
    world = _world()
    _operate(world, Kind.STARTUP)
    seen: list[Action] = []
    world.listeners.append(lambda _world, action: seen.append(action))
    for _ in range(50):
        world.tick(60)
        world.lead()
    assert not [action for action in seen if isinstance(action, WriteStats | SetDesired)]
