"""When a leader has an instance let go of, and what it never does on the way."""

from __future__ import annotations

from dataclasses import replace

from world import World, spec

from citadel_consul.core.actions import SetDesired
from citadel_consul.core.decide import decide
from citadel_consul.core.handback import is_let_go
from citadel_consul.core.lifecycle import Desired
from citadel_consul.core.model import Edge, Instance
from citadel_consul.core.operation import Kind
from citadel_consul.core.snapshot import Hold

A, B = Instance("a", "n1"), Instance("b", "n1")
REQUEST = Hold("service", "a", by="alice", handback=True)


def running() -> World:
    world = World.of([spec("a"), spec("b")], [Edge("b", "a")])
    world.request(Kind.STARTUP)
    world.settle()
    assert {A, B} == world.processes.keys()
    return world


def orders(world: World) -> dict[Instance, Desired]:
    actions = decide(world.snapshot(), world.now)
    return {action.instance: action.desired for action in actions if isinstance(action, SetDesired)}


def test_what_is_handed_back_is_ordered_to_be_released_and_nothing_else_is() -> None:
    world = running()
    before = world.desired[A].generation
    world.holds.append(REQUEST)
    assert orders(world) == {A: Desired(run=False, generation=before + 1, reason="handed back by alice", released=True)}


def test_the_order_is_given_once() -> None:
    world = running()
    world.holds.append(REQUEST)
    world.desired |= orders(world)
    assert orders(world) == {}


def test_a_plain_hold_releases_nothing() -> None:
    world = running()
    world.holds.append(replace(REQUEST, handback=False))
    assert orders(world) == {}


def test_an_operation_that_works_on_it_is_seen_through_first() -> None:
    world = running()
    world.request(Kind.RESTART, "a")
    world.holds.append(REQUEST)
    assert not any(desired.released for desired in orders(world).values())
    world.settle()
    assert world.desired[A].released


def test_what_never_ran_is_not_ordered_anything() -> None:
    world = World.of([spec("a")])
    world.holds.append(REQUEST)
    assert orders(world) == {}
    assert is_let_go(world.snapshot(), A)


def test_what_was_released_is_neither_recovered_nor_missed() -> None:
    world = running()
    world.holds.append(REQUEST)
    world.desired |= orders(world)
    del world.observed[A]
    snapshot = replace(world.snapshot(), defaults=replace(world.defaults, recovery_enabled=True))
    assert [a for a in decide(snapshot, world.now + 60.0) if isinstance(a, SetDesired)] == []
    assert is_let_go(snapshot, A)


def test_it_is_in_hand_until_the_agent_has_let_go_or_is_gone() -> None:
    world = running()
    assert not is_let_go(world.snapshot(), A)
    world.holds.append(REQUEST)
    world.desired |= orders(world)
    assert not is_let_go(world.snapshot(), A)
    assert is_let_go(replace(world.snapshot(), agents=frozenset()), A)
    del world.observed[A]
    assert is_let_go(world.snapshot(), A)


def test_it_can_be_taken_up_again() -> None:
    world = running()
    world.holds.append(REQUEST)
    world.desired |= orders(world)
    del world.observed[A]
    world.holds.clear()
    world.request(Kind.STARTUP, "a")
    order = orders(world)[A]
    assert order.run
    assert not order.released
