"""Properties of decide, held against random stacks, random services and random crashes (see ``invariants``)."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from invariants import edges_from
from scenarios import any_request, any_target, any_world, upset
from world import Accidents, Behaviour, World

from citadel_consul.core.model import Condition, Edge, Instance, OnFailure, Strength
from citadel_consul.core.operation import Kind

PATIENCE_SECONDS = 600.0
"""No operation of a scenario may take longer, with all that it has to wait for and all its rolling back."""


def live_through(rng: Random, *, crash_share: float) -> World:
    """Some requests, cancels and upsets in a random world, until all operations have ended."""
    world = any_world(rng)
    accidents = Accidents(Random(rng.getrandbits(32)), crash_share=crash_share)
    for _ in range(rng.randint(1, 4)):
        operation_id = any_request(rng, world)
        for _ in range(rng.randint(0, 12)):
            accidents.turn(world)
        if rng.random() < 0.2:
            world.cancel(operation_id)
        upset(rng, world)
    accidents.settle(world, patience_seconds=PATIENCE_SECONDS)
    return world


@pytest.mark.parametrize("seed", range(300))
def test_the_invariants_hold_and_every_operation_ends_whatever_crashes(seed: int) -> None:
    live_through(Random(seed), crash_share=0.3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(rng=st.randoms(use_true_random=False), crash_share=st.sampled_from([0.0, 0.3, 0.7]))
def test_the_invariants_hold_in_worlds_that_hypothesis_makes_up(rng: Random, crash_share: float) -> None:
    live_through(rng, crash_share=crash_share)


@pytest.mark.parametrize("seed", range(40))
def test_every_prefix_of_every_decision_is_gone_on_from(seed: int) -> None:
    """I4, completely for small worlds: another leader takes over at once, or after the agents have done their part."""
    rng = Random(seed)
    world = any_world(rng, most_services=4, faults=0.2)
    any_request(rng, world)
    for _ in range(12):
        for until in range(len(world.decide())):
            for unattended_seconds in (None, 2.0):
                go_on_after_a_crash(world.fork(), until, unattended_seconds)
        world.lead()
        moment = world.next_moment()
        if not world.agents_have_work() and moment is None:
            return
        world.tick(0.0 if world.agents_have_work() or moment is None else moment - world.now)


def go_on_after_a_crash(world: World, until: int, unattended_seconds: float | None) -> None:
    world.lead(until=until)
    if unattended_seconds is not None:
        world.tick()
        world.tick(unattended_seconds)
    world.settle(patience_seconds=PATIENCE_SECONDS)


@pytest.mark.parametrize("seed", range(40))
def test_a_crash_changes_neither_what_runs_in_the_end_nor_how_often_it_was_started(seed: int) -> None:
    """In a world without faults the outcome of a startup and a shutdown is the same with and without crashes."""
    calm, stormy = (any_world(Random(seed), faults=0.0) for _ in range(2))
    for kind, left in ((Kind.STARTUP, None), (Kind.SHUTDOWN, set())):
        calm.request(kind, timeout_seconds=PATIENCE_SECONDS)
        stormy.request(kind, timeout_seconds=PATIENCE_SECONDS)
        calm.settle()
        Accidents(Random(seed), crash_share=0.5).settle(stormy, patience_seconds=PATIENCE_SECONDS)
        stormy.settle()
        assert set(stormy.processes) == set(calm.processes)
        assert stormy.executions == calm.executions
        assert stormy.terminations == calm.terminations
        assert left is None or set(calm.processes) == left


@pytest.mark.parametrize("seed", range(60))
def test_a_rollback_leaves_running_exactly_what_ran_before(seed: int) -> None:
    rng = Random(seed)
    world = any_world(rng, faults=0.0)
    world.request(Kind.STARTUP, any_target(rng, world), on_failure=OnFailure.KEEP)
    world.settle()
    before = set(world.processes)
    fragile = sorted(i for s in world.specs.values() for i in s.instances if i not in before and not s.oneshot)
    if not fragile:
        return
    world.behaviours[rng.choice(fragile)] = Behaviour(cannot_start=True)
    operation_id = world.request(Kind.STARTUP, on_failure=OnFailure.ROLLBACK)
    Accidents(rng).settle(world, patience_seconds=PATIENCE_SECONDS)
    world.settle()
    assert any(step.undo for step in world.operation(operation_id).steps)
    assert set(world.processes) == before


@pytest.mark.parametrize("seed", range(60))
def test_continue_starts_everything_that_does_not_need_what_failed(seed: int) -> None:
    rng = Random(seed)
    world = any_world(rng, faults=0.0)
    broken = {i for s in world.specs.values() for i in s.instances if rng.random() < 0.15}
    world.behaviours.update({instance: Behaviour(cannot_start=True) for instance in broken})
    world.request(Kind.STARTUP, on_failure=OnFailure.CONTINUE, timeout_seconds=PATIENCE_SECONDS)
    world.settle()
    assert {instance for instance, _ in world.executions} == startable(world, broken)


def startable(world: World, broken: set[Instance]) -> set[Instance]:
    """The instances that can come up without ``broken``: what the edges say, worked out from nothing to more."""
    good: set[Instance] = set()
    while True:
        more = {
            instance
            for found in world.specs.values()
            if all(_enough(world, edge, good) for edge in edges_from(world, found.name))
            for instance in found.instances
            if instance not in broken
        }
        if more == good:
            return good
        good = more


def _enough(world: World, edge: Edge, good: set[Instance]) -> bool:
    dependency = world.specs[edge.dependency]
    possible = edge.condition is not Condition.COMPLETED or dependency.oneshot
    needed = len(dependency.nodes) if edge.min_instances is None else edge.min_instances
    return edge.strength is Strength.SOFT or (possible and sum(i in good for i in dependency.instances) >= needed)
