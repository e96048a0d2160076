"""What drains, for how long, and what ends a drain, in the model world."""

from __future__ import annotations

import pytest
from invariants import guard
from world import Behaviour, World, spec

from citadel_consul.cli.statusscreen import waits_of
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Condition, Edge, Instance, OnFailure, ServiceSpec
from citadel_consul.core.operation import Kind, OperationState

SUCCEEDED, FAILED, CANCELLED = OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED
A1, A2, B1 = Instance("a", "n1"), Instance("a", "n2"), Instance("b", "n1")


def world_of(*specs: ServiceSpec, edges: tuple[Edge, ...] = ()) -> World:
    """A guarded world in which everything runs."""
    world = guard(World.of(specs, edges))
    world.request(Kind.STARTUP)
    world.settle()
    return world


def ordered(world: World, instance: Instance, kind: Kind, *targets: str, **options: object) -> float | None:
    """How long the order that ``kind`` leads to lets ``instance`` drain."""
    world.request(kind, *targets, **options)
    world.lead()
    assert not world.desired[instance].run
    return world.desired[instance].drain_seconds


def draining(world: World, *targets: str, **options: object) -> str:
    """Ask for a drain, and let the agents begin with it; returns its id."""
    operation_id = world.request(Kind.DRAIN, *targets, **options)
    world.lead()
    world.tick()
    world.lead()
    return operation_id


# --- what drains, and for how long ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "of_spec", "seconds"),
    [
        (Kind.DRAIN, {}, None, 30.0),
        (Kind.DRAIN, {}, 7.0, 7.0),
        (Kind.DRAIN, {"drain_seconds": 3.0}, 7.0, 3.0),
        (Kind.DRAIN, {"drain_seconds": 0.0}, 7.0, None),
        (Kind.RESTART, {"rolling": True}, None, 30.0),
        (Kind.RESTART, {"rolling": True, "drain_seconds": 0.0}, None, None),
        (Kind.RESTART, {}, None, None),
        (Kind.RESTART, {}, 7.0, 7.0),
        (Kind.SHUTDOWN, {}, None, None),
        (Kind.SHUTDOWN, {}, 7.0, 7.0),
        (Kind.SHUTDOWN, {}, 0.0, None),
        (Kind.SHUTDOWN, {"graceful": False}, 7.0, None),
        (Kind.RECOVER, {}, 7.0, None),
    ],
)
def test_how_long_a_stop_may_drain(
    kind: Kind, options: dict[str, object], of_spec: float | None, seconds: float | None
) -> None:
    world = world_of(spec("a", drain_timeout_seconds=of_spec))
    assert ordered(world, A1, kind, "a", **options) == seconds


def test_what_a_rollback_undoes_is_not_drained() -> None:
    world = guard(World.of([spec("a", drain_timeout_seconds=7.0), spec("b")], [Edge("b", "a")]))
    world.behaviours = {B1: Behaviour(cannot_start=True)}
    world.request(Kind.STARTUP, on_failure=OnFailure.ROLLBACK)
    world.settle()
    assert world.desired[A1].reason == "rollback"
    assert world.desired[A1].drain_seconds is None


# --- a drain ------------------------------------------------------------------------------------------------------


def test_a_drained_instance_is_stopped_and_stays_down_until_somebody_wants_it_up() -> None:
    world = world_of(spec("a", "n1", "n2"))
    operation_id = world.request(Kind.DRAIN, "a@n1")
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert (world.runs(A1), world.runs(A2)) == (False, True)
    assert not world.desired[A1].wanted
    world.request(Kind.STARTUP, "a")
    world.settle()
    assert world.runs(A1)


def test_a_drain_ends_as_soon_as_nothing_is_in_flight() -> None:
    world = world_of(spec("a"))
    world.behaviours = {A1: Behaviour(drained_after=2.0)}
    begin = world.now
    world.request(Kind.DRAIN, "a")
    world.settle()
    assert world.now == begin + 2.0 + 1.0


def test_a_drain_that_does_not_end_is_ended_by_its_time_out_and_not_by_the_stops() -> None:
    """The stop's own time-out is 5 s here: it counts from the end of the drain."""
    world = world_of(spec("a"))
    world.behaviours = {A1: Behaviour(drained_after=None)}
    begin = world.now
    operation_id = world.request(Kind.DRAIN, "a", drain_seconds=300.0)
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert world.now == begin + 300.0 + 1.0


def test_people_see_how_much_is_in_flight_and_until_when() -> None:
    world = world_of(spec("a"))
    operation_id = draining(world, "a")
    told = "draining until 1970-01-01T00:17:11Z, 1 in flight"
    assert world.step(operation_id, "stop", "a@n1").detail == told
    assert waits_of(world.operation(operation_id)) == [f"stop a@n1: {told}"], "citadel status shows it"


def test_a_drain_is_refused_where_it_would_leave_dependents_without_what_they_need() -> None:
    world = world_of(spec("a", "n1", "n2"), spec("b"), edges=(Edge("b", "a"),))
    operation_id = world.request(Kind.DRAIN, "a@n1")
    world.settle()
    assert world.state(operation_id) is FAILED
    assert world.heads[operation_id].detail.startswith("draining a would leave b without what they need")
    assert world.runs(A1)


def test_a_drain_is_not_refused_where_dependents_can_spare_it() -> None:
    world = world_of(spec("a", "n1", "n2"), spec("b"), edges=(Edge("b", "a", min_instances=1),))
    operation_id = world.request(Kind.DRAIN, "a@n1")
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert world.runs(B1)


def test_a_forced_drain_leaves_dependents_up_and_says_so() -> None:
    world = world_of(spec("a"), spec("b"), edges=(Edge("b", "a"),))
    operation_id = world.request(Kind.DRAIN, "a", force=True)
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert world.heads[operation_id].warnings == ("b stay up without what they need of a",)
    assert (world.runs(A1), world.runs(B1)) == (False, True)


def test_a_cancelled_drain_is_taken_back() -> None:
    world = world_of(spec("a"))
    world.behaviours = {A1: Behaviour(drained_after=None)}
    operation_id = draining(world, "a")
    assert world.observed[A1].phase is Phase.DRAINING
    world.cancel(operation_id)
    world.settle()
    assert world.state(operation_id) is CANCELLED
    assert world.observed[A1].phase is Phase.READY
    assert world.snapshot().meets(A1, Condition.HEALTHY)
    assert sum(world.executions.values()) == 1


def test_a_kill_does_not_wait_for_a_drain() -> None:
    world = world_of(spec("a"))
    world.behaviours = {A1: Behaviour(drained_after=None)}
    first = draining(world, "a", timeout_seconds=5.0)
    begin = world.now
    world.tick(5.0)
    world.request(Kind.SHUTDOWN, "a", graceful=False)
    world.settle()
    assert world.state(first) is FAILED
    assert not world.runs(A1)
    assert world.now <= begin + 6.0


def test_what_dies_while_it_drains_is_stopped() -> None:
    world = world_of(spec("a"))
    world.behaviours = {A1: Behaviour(drained_after=None)}
    operation_id = draining(world, "a")
    world.kill(A1)
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert not world.runs(A1)
