"""Rolling restarts in the model world: who is next, who is waited for, and how a roll ends."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest
from invariants import guard, is_met, meets
from scenarios import any_target
from world import Accidents, Behaviour, World, spec

from citadel_consul.core.actions import Action, SetDesired
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Condition, Edge, Instance, OnFailure, ServiceSpec, Strength
from citadel_consul.core.operation import Kind, Operation, OperationState, StepState

SUCCEEDED, FAILED, CANCELLED = OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED
NODES = ("n1", "n2", "n3")
E1, E2, E3 = (Instance("embedding", node) for node in NODES)
PATIENCE_SECONDS = 2_000.0


def world_of(*specs: ServiceSpec, edges: Iterable[Edge] = ()) -> World:
    """A guarded world in which everything runs."""
    world = guard(World.of(specs, edges))
    world.request(Kind.STARTUP)
    world.settle()
    assert all(world.runs(instance) for found in specs for instance in found.instances)
    return world


def embedding_under_gateway(min_instances: int | None = 2) -> World:
    edge = Edge("gateway", "embedding", min_instances=min_instances)
    return world_of(spec("embedding", *NODES), spec("gateway"), edges=[edge])


def roll(world: World, *targets: str, **options: object) -> Operation:
    """Ask for a rolling restart, and let it come to its end."""
    operation_id = world.request(Kind.RESTART, *targets, rolling=True, **options)
    world.settle(patience_seconds=PATIENCE_SECONDS)
    return world.operation(operation_id)


def order_of_stops(world: World) -> list[Instance]:
    """Have ``world`` write down which instances it is told to stop, in their order."""
    stops: list[Instance] = []

    def listen(_: World, action: Action) -> None:
        if isinstance(action, SetDesired) and not action.desired.run:
            stops.append(action.instance)

    world.listeners.append(listen)
    return stops


def starts_of(world: World, instance: Instance) -> int:
    return sum(count for (found, _), count in world.executions.items() if found == instance)


# --- the order ----------------------------------------------------------------------------------------------------


def test_a_roll_restarts_each_instance_once_and_one_after_the_other() -> None:
    world = embedding_under_gateway()
    stops = order_of_stops(world)
    assert roll(world, "embedding").state is SUCCEEDED
    assert stops == [E1, E2, E3]
    assert [starts_of(world, i) for i in (E1, E2, E3)] == [2, 2, 2]
    assert starts_of(world, Instance("gateway", "n1")) == 1


def test_a_rolled_instance_drains_before_it_is_stopped() -> None:
    world = embedding_under_gateway()
    world.request(Kind.RESTART, "embedding@n2", rolling=True)
    world.lead()
    assert world.desired[E2].drain_seconds == world.defaults.drain_timeout_seconds
    world.tick()
    assert world.observed[E2].phase is Phase.DRAINING
    assert not meets(world, E2, Condition.HEALTHY)


def test_the_subtree_comes_after_what_it_needs() -> None:
    edges = [Edge("b", "a", min_instances=1), Edge("c", "b", min_instances=1), Edge("d", "a", strength=Strength.SOFT)]
    world = world_of(spec("c"), spec("b", "n1", "n2"), spec("a", "n1", "n2"), spec("d"), edges=edges)
    stops = order_of_stops(world)
    assert roll(world, "a", subtree=True).state is SUCCEEDED
    assert [str(i) for i in stops] == ["a@n1", "a@n2", "b@n1", "b@n2", "c@n1"]


def test_what_does_not_serve_is_restarted_first() -> None:
    world = embedding_under_gateway()
    world.behaviours[E3] = Behaviour(critical=True)
    stops = order_of_stops(world)
    world.request(Kind.RESTART, "embedding", rolling=True)
    world.lead()
    assert stops == [E3]


def test_what_is_stopped_is_left_alone() -> None:
    world = embedding_under_gateway(min_instances=1)
    world.request(Kind.DRAIN, "embedding@n1")
    world.settle()
    assert roll(world, "embedding").state is SUCCEEDED
    assert not world.runs(E1)
    assert [starts_of(world, i) for i in (E1, E2, E3)] == [1, 2, 2]


def test_the_next_waits_until_the_last_serves_again() -> None:
    world = embedding_under_gateway()
    world.behaviours[E1] = Behaviour(ready_after=5.0)
    operation_id = world.request(Kind.RESTART, "embedding", rolling=True)
    stops = order_of_stops(world)
    while not (world.runs(E1) and world.observed[E1].phase is Phase.STARTING):
        world.lead()
        world.tick(0.0 if world.agents_have_work() else 1.0)
    world.tick(4.0)
    world.lead()
    assert stops == [E1]
    assert world.step(operation_id, "stop", "embedding@n2").detail == "waits for embedding@n1 to be healthy again"


# --- what dependents need -------------------------------------------------------------------------------------------


def test_a_roll_is_refused_where_a_dependent_can_spare_nothing() -> None:
    world = embedding_under_gateway(min_instances=None)
    operation = roll(world, "embedding")
    assert operation.state is FAILED
    assert not operation.steps
    assert "gateway needs 3 of 3 instances of embedding, of which 3 run" in operation.detail
    assert starts_of(world, E1) == 1


def test_a_single_instance_under_a_hard_dependent_is_not_rolled() -> None:
    world = world_of(spec("db"), spec("api"), edges=[Edge("api", "db")])
    assert "api needs 1 of 1 instances of db, of which 1 runs" in roll(world, "db").detail


def test_a_drained_instance_counts_as_one_less_to_spare() -> None:
    world = embedding_under_gateway(min_instances=2)
    world.request(Kind.DRAIN, "embedding@n1")
    world.settle()
    assert "of which 2 run" in roll(world, "embedding").detail


def test_force_rolls_nevertheless_and_says_what_that_does() -> None:
    world = world_of(spec("db"), spec("api"), edges=[Edge("api", "db")])
    operation = roll(world, "db", force=True)
    assert operation.state is SUCCEEDED
    assert starts_of(world, Instance("db", "n1")) == 2
    assert starts_of(world, Instance("api", "n1")) == 1
    assert any("its clients find none while that restarts" in text for text in operation.warnings)
    assert any("api needs 1 of 1" in text for text in operation.warnings)


def test_a_single_instance_that_nobody_needs_is_rolled_with_a_warning() -> None:
    operation = roll(world_of(spec("web")), "web")
    assert operation.state is SUCCEEDED
    assert operation.warnings == ("web has no other instance than web@n1: its clients find none while that restarts",)


def test_dependents_that_do_not_run_need_nothing() -> None:
    world = guard(World.of([spec("db"), spec("api")], [Edge("api", "db")]))
    world.request(Kind.STARTUP, "db")
    world.settle()
    assert roll(world, "db").state is SUCCEEDED


def test_a_roll_waits_for_an_instance_outside_it_that_does_not_serve_now() -> None:
    world = embedding_under_gateway()
    world.behaviours[E3] = Behaviour(critical=True)
    operation_id = world.request(Kind.RESTART, "embedding@n1", "embedding@n2", rolling=True)
    world.lead()
    assert world.step(operation_id, "stop", "embedding@n1").detail == "waits for embedding@n3 to be healthy"
    world.behaviours[E3] = Behaviour()
    world.settle()
    assert world.state(operation_id) is SUCCEEDED


def test_a_roll_of_what_does_not_run_is_refused() -> None:
    world = world_of(spec("web"))
    world.request(Kind.SHUTDOWN, "web")
    world.settle()
    assert "nothing of it runs" in roll(world, "web").detail


# --- how it ends ----------------------------------------------------------------------------------------------------


def test_the_first_failure_ends_a_roll_and_says_how_to_go_on() -> None:
    world = embedding_under_gateway()
    world.behaviours[E2] = Behaviour(cannot_start=True)
    operation = roll(world, "embedding")
    assert operation.state is FAILED
    assert world.step_states(operation.id)["stop embedding@n3"] == StepState.SKIPPED
    assert world.runs(E1)
    assert starts_of(world, E3) == 1
    assert "start of embedding@n2: cannot be started" in operation.detail
    assert operation.detail.endswith(
        "1 of 3 instances were restarted; to go on: citadel restart --rolling embedding@n2 embedding@n3"
    )


def test_a_death_in_the_middle_ends_a_roll_that_would_take_too_much() -> None:
    world = embedding_under_gateway()
    operation_id = world.request(Kind.RESTART, "embedding", rolling=True)
    while world.step_states(operation_id).get("start embedding@n1") != StepState.SUCCEEDED:
        world.lead(until=None)
        world.tick(0.0 if world.agents_have_work() else 0.5)
        if world.heads[operation_id].step_count == 0:
            continue
        if world.step(operation_id, "start", "embedding@n1").state is StepState.SUCCEEDED:
            break
    world.kill(E1)
    world.settle()
    operation = world.operation(operation_id)
    assert operation.state is FAILED
    assert "mend that first" in operation.detail or "embedding@n1" in operation.detail
    assert world.runs(E3)


def test_a_cancelled_roll_sees_the_instance_in_hand_through() -> None:
    world = embedding_under_gateway()
    operation_id = world.request(Kind.RESTART, "embedding", rolling=True)
    world.lead()
    world.tick()
    world.cancel(operation_id)
    world.settle()
    operation = world.operation(operation_id)
    assert operation.state is CANCELLED
    assert [starts_of(world, i) for i in (E1, E2, E3)] == [2, 1, 1]
    assert all(world.runs(i) for i in (E1, E2, E3))
    assert operation.detail.endswith("to go on: citadel restart --rolling embedding@n2 embedding@n3")


def test_a_cancelled_roll_does_not_start_what_had_died_by_itself() -> None:
    """It has not taken that down, and what becomes of it is for recovery to say."""
    world = world_of(spec("db"), spec("web"), edges=[Edge("web", "db", strength=Strength.MILESTONE)])
    web = Instance("web", "n1")
    world.behaviours[Instance("db", "n1")] = Behaviour(critical=True)
    world.kill(web)
    operation_id = world.request(Kind.RESTART, "web", rolling=True)
    world.lead()
    assert world.step(operation_id, "start", "web@n1").detail == "waits for db to be healthy"
    world.cancel(operation_id)
    world.lead()
    world.behaviours[Instance("db", "n1")] = Behaviour()
    world.settle()
    assert world.state(operation_id) is CANCELLED
    assert starts_of(world, web) == 1


def test_a_roll_has_as_much_time_as_its_instances_may_take_one_after_the_other() -> None:
    nodes = tuple(f"n{number}" for number in range(1, 21))
    world = world_of(spec("web", *nodes))
    world.behaviours = {Instance("web", node): Behaviour(ready_after=9.0, drained_after=None) for node in nodes}
    assert roll(world, "web", drain_seconds=10.0).state is SUCCEEDED  # 20 * 20 s, and both defaults are 120 s


# --- whatever happens -----------------------------------------------------------------------------------------------


def always_met(world: World, edges: list[Edge]) -> None:
    """Every edge of a running dependent holds, at this very moment and in truth."""
    for edge in edges:
        if edge.strength is Strength.HARD and edge.condition is not Condition.COMPLETED:
            assert is_met(world, edge), f"{edge} does not hold at {world.now}"


def calm_world(rng: Random) -> World:
    """A random world without faults, in which everything runs and most edges can spare an instance."""
    specs = [
        spec(f"s{n}", *rng.sample(NODES, rng.randint(2, 3)), on_failure=rng.choice(list(OnFailure)))
        for n in range(rng.randint(2, 6))
    ]
    edges = [
        Edge(
            above.name,
            below.name,
            condition=rng.choice([Condition.HEALTHY, Condition.HEALTHY, Condition.STARTED]),
            strength=rng.choice([Strength.HARD, Strength.HARD, Strength.HARD, Strength.SOFT, Strength.MILESTONE]),
            min_instances=None if rng.random() < 0.03 else rng.randint(1, len(below.nodes) - 1),
        )
        for place, above in enumerate(specs)
        for below in specs[:place]
        if rng.random() < 0.6
    ]
    rng.shuffle(specs)
    world = guard(World.of(specs, edges))
    for found in specs:
        for instance in found.instances:
            world.behaviours[instance] = Behaviour(
                ready_after=rng.choice([0.0, 1.0, 3.0]), drained_after=rng.choice([0.0, 0.5, 4.0, None])
            )
    world.request(Kind.STARTUP, timeout_seconds=PATIENCE_SECONDS)
    world.settle(patience_seconds=PATIENCE_SECONDS)
    world.wake_at = None  # that of the startup's time-out
    return world


@pytest.mark.parametrize("seed", range(80))
def test_no_edge_is_below_its_min_instances_at_any_moment_of_a_roll(seed: int) -> None:
    """Leaders die, agents look when they please: what dependents need is there all the time."""
    rng = Random(seed)
    world = calm_world(rng)
    edges = [e for e in world.edges if all(world.runs(i) for i in world.specs[e.service].instances)]
    always_met(world, edges)
    operation_id = world.request(Kind.RESTART, any_target(rng, world), rolling=True, subtree=rng.random() < 0.5)
    accidents = Accidents(rng, crash_share=0.3)
    deadline = world.now + PATIENCE_SECONDS
    while not world.operation(operation_id).ended:
        assert world.now < deadline, world.operation(operation_id)
        accidents.turn(world)
        always_met(world, edges)
    operation = world.operation(operation_id)
    rolled = {step.instance for step in operation.steps}
    assert operation.state is (SUCCEEDED if rolled else FAILED), operation
    before = {i: 1 for found in world.specs.values() for i in found.instances}
    assert all(starts_of(world, i) == count + (i in rolled) for i, count in before.items())


@pytest.mark.parametrize("seed", range(80))
def test_whatever_fails_during_a_roll_no_decision_takes_what_is_needed(seed: int) -> None:
    """The invariants of the world say so at each decision; here services fail, die and turn critical meanwhile."""
    rng = Random(seed)
    world = calm_world(rng)
    for instance in sorted(world.processes):
        if rng.random() < 0.2:
            world.behaviours[instance] = rng.choice(
                [Behaviour(cannot_start=True), Behaviour(ready_after=None), Behaviour(critical=True)]
            )
    operation_id = world.request(Kind.RESTART, rolling=True, force=rng.random() < 0.3)
    accidents = Accidents(rng, crash_share=0.3)
    deadline = world.now + PATIENCE_SECONDS
    while not world.operation(operation_id).ended:
        assert world.now < deadline, world.operation(operation_id)
        accidents.turn(world)
        if rng.random() < 0.15 and world.processes:
            world.kill(rng.choice(sorted(world.processes)))
    assert all(step.ended for step in world.operation(operation_id).steps)
