"""What operations do, told as short stories in the model world (every invariant is watched in each)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from invariants import guard
from world import BEGIN, Behaviour, World, spec

from citadel_consul.core.actions import WakeAt
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Condition, Edge, Instance, OnFailure, OnRecovery, ServiceSpec, Strength
from citadel_consul.core.operation import Kind, OperationState

A1, B1, C1, D1, D2, D3 = (
    Instance(*name.split("@")) for name in ("a@n1", "b@n1", "c@n1", "d@n1", "d@n2", "d@n3")
)  # fmt: skip
SUCCEEDED, FAILED, CANCELLED = OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED


def world_of(specs: Iterable[ServiceSpec], *edges: Edge, **fields: object) -> World:
    return guard(World.of(specs, edges, **fields))


def chain(**behaviours: Behaviour) -> World:
    """c depends on b, b on a."""
    world = world_of([spec("c"), spec("b"), spec("a")], Edge("c", "b"), Edge("b", "a"))
    world.behaviours = {Instance(name, "n1"): behaviour for name, behaviour in behaviours.items()}
    return world


def up(world: World, *targets: str) -> World:
    """``world`` after a startup that went well."""
    operation_id = world.request(Kind.STARTUP, *targets)
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    return world


def started_at(world: World, instance: Instance) -> float:
    moment = world.observed[instance].started_at
    assert moment is not None
    return moment - BEGIN


# --- startup ------------------------------------------------------------------------------------------------------


def test_a_startup_starts_each_service_the_moment_its_own_edges_allow_it() -> None:
    world = world_of([spec(n) for n in "abcd"], Edge("c", "a"), Edge("d", "b"))
    world.behaviours = {A1: Behaviour(ready_after=3.0)}
    up(world)
    assert [started_at(world, i) for i in (A1, B1, D1, C1)] == [0.0, 0.0, 1.0, 3.0]


def test_a_startup_of_a_subset_brings_up_its_hard_and_milestone_dependencies_only() -> None:
    world = world_of(
        [spec(n) for n in "abcdef"],
        Edge("a", "b"),
        Edge("b", "c", strength=Strength.MILESTONE),
        Edge("a", "d", strength=Strength.SOFT),
        Edge("e", "a"),
    )
    assert up(world, "a").running() == {"a", "b", "c"}


def test_a_soft_dependency_that_is_started_anyway_comes_first() -> None:
    world = up(world_of([spec("a"), spec("b")], Edge("a", "b", strength=Strength.SOFT)))
    assert started_at(world, A1) == 1.0


def test_a_soft_dependency_that_fails_holds_nothing_up() -> None:
    world = world_of([spec("a"), spec("b")], Edge("a", "b", strength=Strength.SOFT))
    world.behaviours = {B1: Behaviour(cannot_start=True)}
    operation_id = world.request(Kind.STARTUP, on_failure=OnFailure.CONTINUE)
    world.settle()
    assert world.step_states(operation_id) == {"start b@n1": "failed", "start a@n1": "succeeded"}


@pytest.mark.parametrize(
    ("condition", "after"), [(Condition.STARTED, 0.0), (Condition.HEALTHY, 2.0)], ids=["started", "healthy"]
)
def test_an_edge_waits_for_its_condition(condition: Condition, after: float) -> None:
    world = world_of([spec("a"), spec("b")], Edge("a", "b", condition=condition))
    world.behaviours = {B1: Behaviour(ready_after=2.0)}
    assert started_at(up(world), A1) == after


def test_a_dependent_of_a_oneshot_waits_until_it_has_completed() -> None:
    world = world_of([spec("a"), spec("b", oneshot=True)], Edge("a", "b", condition=Condition.COMPLETED))
    world.behaviours = {B1: Behaviour(exits_after=4.0, exits_well=True)}
    up(world)
    assert started_at(world, A1) == 4.0
    assert world.observed[B1].phase is Phase.COMPLETED


def test_a_oneshot_that_has_completed_is_not_run_again_by_a_startup() -> None:
    world = world_of([spec("b", oneshot=True)])
    world.behaviours = {B1: Behaviour(exits_after=1.0, exits_well=True)}
    up(up(world))
    assert world.executions == {(B1, 1): 1}


def test_a_oneshot_that_exits_badly_fails_its_startup() -> None:
    world = world_of([spec("a"), spec("b", oneshot=True)], Edge("a", "b", condition=Condition.COMPLETED))
    world.behaviours = {B1: Behaviour(exits_after=1.0)}
    operation_id = world.request(Kind.STARTUP)
    world.settle()
    assert world.step_states(operation_id) == {"start b@n1": "failed", "start a@n1": "skipped"}


def test_a_restarted_oneshot_has_to_complete_again_before_its_dependents_start() -> None:
    world = world_of([spec("b", oneshot=True), spec("a")], Edge("a", "b", condition=Condition.COMPLETED))
    world.behaviours = {B1: Behaviour(exits_after=4.0, exits_well=True)}
    up(world, "b")
    # An agent that acknowledges the stop of what has ended without a change of its phase is within its rights.
    world.desired[B1] = Desired(run=True, generation=2, wanted=True)
    world.silent = {"n1"}
    world.request(Kind.STARTUP, "a")
    world.lead()
    assert A1 not in world.desired


@pytest.mark.parametrize("needed", [1, 2, 3])
def test_min_instances_lets_a_dependent_start_when_k_of_n_are_healthy(needed: int) -> None:
    world = world_of([spec("a"), spec("d", "n1", "n2", "n3")], Edge("a", "d", min_instances=needed))
    world.behaviours = {i: Behaviour(ready_after=float(n)) for n, i in enumerate((D1, D2, D3), start=1)}
    assert started_at(up(world), A1) == float(needed)


def test_min_instances_above_the_number_of_instances_means_all_of_them() -> None:
    world = world_of([spec("a"), spec("d", "n1", "n2")], Edge("a", "d", min_instances=5))
    assert up(world).running() == {"a", "d"}


def test_a_startup_succeeds_when_a_failed_instance_is_not_needed_by_the_rest() -> None:
    world = world_of([spec("a"), spec("d", "n1", "n2")], Edge("a", "d", min_instances=1))
    world.behaviours = {D1: Behaviour(cannot_start=True)}
    operation_id = world.request(Kind.STARTUP)
    world.settle()
    assert world.step_states(operation_id)["start a@n1"] == "succeeded"
    assert world.state(operation_id) is FAILED


def test_a_dependent_is_skipped_as_soon_as_too_few_instances_can_become_healthy() -> None:
    world = world_of([spec("a"), spec("d", "n1", "n2", "n3")], Edge("a", "d", min_instances=2))
    world.behaviours = {D1: Behaviour(cannot_start=True), D2: Behaviour(cannot_start=True)}
    operation_id = world.request(Kind.STARTUP)
    world.settle()
    assert world.step(operation_id, "start", "a@n1").detail == "needs d, which is not healthy"
    assert world.now - BEGIN < world.defaults.startup_timeout_seconds


def test_a_startup_of_what_runs_changes_nothing() -> None:
    world = up(chain())
    executions, orders = dict(world.executions), dict(world.orders)
    up(world)
    assert (dict(world.executions), dict(world.orders)) == (executions, orders)


def test_a_target_may_name_one_instance() -> None:
    world = world_of([spec("d", "n1", "n2")])
    up(world, "d@n2")
    assert set(world.processes) == {D2}


def test_a_startup_of_one_instance_and_of_its_services_dependent_brings_up_what_that_one_needs() -> None:
    world = world_of([spec("a"), spec("d", "n1", "n2")], Edge("a", "d"))
    assert set(up(world, "a", "d@n1").processes) == {A1, D1, D2}


def test_a_failed_start_may_be_asked_for_again() -> None:
    world = chain(b=Behaviour(cannot_start=True))
    world.request(Kind.STARTUP)
    world.settle()
    world.behaviours = {}
    assert up(world).running() == {"a", "b", "c"}


def test_what_exited_after_its_start_is_started_by_the_next_startup() -> None:
    world = up(chain())
    world.kill(C1)
    assert up(world).executions == {(A1, 1): 1, (B1, 1): 1, (C1, 1): 1, (C1, 2): 1}


def test_a_start_that_never_becomes_healthy_fails_after_its_time_out_and_is_left_running() -> None:
    world = world_of([spec("a", start_timeout_seconds=7.0)])
    world.behaviours = {A1: Behaviour(ready_after=None)}
    operation_id = world.request(Kind.STARTUP)
    world.settle()
    step = world.step(operation_id, "start", "a@n1")
    assert (step.detail, world.now - BEGIN) == ("not healthy after 7 s; left running", 7.0)
    assert world.runs(A1)


def test_a_start_that_no_agent_takes_is_taken_back_so_that_none_acts_on_it_later() -> None:
    world = world_of([spec("a")], silent={"n1"})
    operation_id = world.request(Kind.STARTUP)
    world.settle()
    step = world.step(operation_id, "start", "a@n1")
    assert step.detail == "not started within 10 s: no node agent runs on n1"
    world.silent = set()
    world.tick()
    assert not world.runs(A1)


def test_the_time_out_of_an_operation_takes_back_starts_that_no_agent_took() -> None:
    world = world_of([spec("a")], silent={"n1"})
    world.request(Kind.STARTUP, timeout_seconds=5.0)
    world.settle()
    world.silent = set()
    world.tick()
    assert not world.runs(A1)


def test_the_time_out_of_an_operation_ends_it() -> None:
    world = chain(b=Behaviour(ready_after=8.0))
    operation_id = world.request(Kind.STARTUP, timeout_seconds=5.0, on_failure=OnFailure.KEEP)
    world.settle()
    assert world.state(operation_id) is FAILED
    assert world.step_states(operation_id) == {
        "start a@n1": "succeeded",
        "start b@n1": "failed",
        "start c@n1": "skipped",
    }
    assert world.step(operation_id, "start", "c@n1").detail == "the operation took longer than 5 s"
    assert world.heads[operation_id].ended_at == BEGIN + 5.0


def test_an_edge_that_is_added_while_an_operation_runs_is_honoured() -> None:
    world = world_of([spec(n) for n in "abc"], Edge("c", "b"))
    world.behaviours = {A1: Behaviour(ready_after=5.0)}
    operation_id = world.request(Kind.STARTUP)
    world.lead()
    world.edges.append(Edge("c", "a"))
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert started_at(world, C1) == 5.0


def test_a_service_that_is_pruned_while_it_starts_fails_its_step_and_no_more() -> None:
    world = world_of([spec("a"), spec("b", oneshot=True)], Edge("a", "b", strength=Strength.SOFT))
    world.behaviours = {B1: Behaviour(exits_after=1.0, exits_well=True)}
    operation_id = world.request(Kind.STARTUP)
    world.lead()
    world.tick()
    world.tick(1.0)
    assert world.observed[B1].phase is Phase.COMPLETED
    del world.specs["b"]
    world.settle()
    assert world.step_states(operation_id) == {"start b@n1": "failed", "start a@n1": "succeeded"}


def test_a_service_that_is_pruned_before_its_start_fails_its_step() -> None:
    world = chain()
    operation_id = world.request(Kind.STARTUP)
    world.lead()
    del world.specs["c"]
    world.settle()
    assert world.step(operation_id, "start", "c@n1").detail == "its spec is gone"


def test_a_new_order_outnumbers_what_the_agent_remembers() -> None:
    """The desired state of a service that was pruned and applied again is gone; what its agent saw is not."""
    world = up(world_of([spec("a")]))
    world.request(Kind.SHUTDOWN)
    world.settle()
    del world.desired[A1]
    assert up(world).running() == {"a"}
    assert world.desired[A1].generation == 3


# --- failure policies ---------------------------------------------------------------------------------------------


def forked_world(policy: OnFailure) -> World:
    """a ← b, and x ← y ← z of which y fails; x and b are slower than y's failure."""
    services = [spec(n, on_failure=policy if n == "y" else OnFailure.CONTINUE) for n in "abxyz"]
    world = world_of(services, Edge("b", "a"), Edge("y", "x"), Edge("z", "y"))
    world.behaviours = {A1: Behaviour(ready_after=3.0), Instance("y", "n1"): Behaviour(exits_after=0.5)}
    return world


def test_continue_starts_everything_that_does_not_depend_on_what_failed() -> None:
    world = forked_world(OnFailure.CONTINUE)
    operation_id = world.request(Kind.STARTUP)
    world.settle()
    assert world.running() == {"a", "b", "x"}
    assert world.step(operation_id, "start", "z@n1").detail == "needs y, which is not healthy"
    assert world.heads[operation_id].detail == "start of y@n1: it exited"


def test_keep_starts_nothing_more_and_leaves_running_what_runs() -> None:
    world = forked_world(OnFailure.KEEP)
    operation_id = world.request(Kind.STARTUP)
    world.settle()
    assert world.running() == {"a", "x"}
    assert world.step(operation_id, "start", "b@n1").detail == "another service failed"
    assert world.state(operation_id) is FAILED


def test_keep_starts_nothing_more_in_the_very_turn_of_the_failure() -> None:
    world = world_of([spec(n) for n in "abc"], Edge("c", "b"))
    world.behaviours = {A1: Behaviour(exits_after=1.0, ready_after=5.0), B1: Behaviour(ready_after=1.0)}
    operation_id = world.request(Kind.STARTUP, on_failure=OnFailure.KEEP)
    world.settle()
    assert world.step_states(operation_id) == {
        "start a@n1": "failed",
        "start b@n1": "succeeded",
        "start c@n1": "skipped",
    }


def test_rollback_undoes_in_reverse_order_exactly_what_the_operation_started() -> None:
    world = forked_world(OnFailure.ROLLBACK)
    up(world, "a")
    operation_id = world.request(Kind.STARTUP)
    world.settle()
    assert world.running() == {"a"}
    assert [str(s.instance) for s in world.operation(operation_id).steps if s.undo] == ["y@n1", "x@n1", "b@n1"]
    assert world.state(operation_id) is FAILED
    assert world.heads[operation_id].detail == "start of y@n1: it exited, undone"


def test_rollback_stops_nothing_under_a_start_that_it_takes_back_before_the_agent_has_told_of_it() -> None:
    world = world_of([spec("a"), spec("b"), spec("x", nodes=("n2",))], Edge("b", "a"))
    world.behaviours = {Instance("x", "n2"): Behaviour(ready_after=None)}
    operation_id = world.request(Kind.STARTUP, on_failure=OnFailure.ROLLBACK)
    world.lead()
    world.tick()
    world.tick(1.0)
    world.lead()
    assert world.desired[B1].run
    world.kill(Instance("x", "n2"))
    world.lead()
    assert not world.desired[B1].run
    assert world.desired[A1].run, "what is below it goes when its agent has said that it is down"
    world.settle()
    assert world.running() == set()
    assert world.state(operation_id) is FAILED


def test_rollback_stops_nothing_under_a_start_of_which_a_silent_agent_has_not_told() -> None:
    world = world_of([spec("a"), spec("b", nodes=("n2",))], Edge("b", "a"))
    operation_id = world.request(Kind.STARTUP, on_failure=OnFailure.ROLLBACK)
    world.lead()
    world.tick()
    world.tick(1.0)
    world.lead()
    b2 = Instance("b", "n2")
    assert world.desired[b2].run
    world.silent.add("n2")
    world.tick(200.0, only=("n1",))
    world.lead()
    assert not world.desired[b2].run, "the start is taken back"
    assert world.desired[A1].run, "it may have been carried out"
    assert not world.desired[b2].wanted, "nor is it to be started when its agent is back"
    world.silent.clear()
    world.settle()
    assert world.running() == set()
    assert world.state(operation_id) is FAILED


def test_a_shutdown_waits_for_what_may_have_started_and_says_so_when_nobody_answers() -> None:
    world = world_of([spec("a"), spec("b", nodes=("n2",))], Edge("b", "a"))
    b2 = Instance("b", "n2")
    world.request(Kind.STARTUP)
    world.lead()
    world.tick()
    world.tick(1.0)
    world.lead()
    world.silent.add("n2")
    world.tick(200.0, only=("n1",))
    world.lead()
    assert not world.desired[b2].run, "the start is taken back"
    in_vain = world.request(Kind.SHUTDOWN)
    world.lead()
    assert (world.desired[A1].run, world.desired[b2].wanted) == (True, False)
    world.tick(40.0, only=("n1",))
    world.lead()
    assert world.state(in_vain) is FAILED
    assert world.desired[A1].run
    assert world.step(in_vain, "stop", "a@n1").detail == "b@n2 may have started and needs it"
    world.specs["b"] = spec("b", nodes=("n1",))  # the node is gone for good, and is taken out of the stack file
    world.request(Kind.SHUTDOWN)
    world.settle()
    assert not world.desired[A1].run


def test_rollback_also_undoes_a_start_whose_order_outlived_the_leader_that_gave_it() -> None:
    world = world_of([spec(n) for n in "ab"])
    world.behaviours = {A1: Behaviour(cannot_start=True)}
    operation_id = world.request(Kind.STARTUP, on_failure=OnFailure.ROLLBACK)
    lead_until_ordered(world, B1)
    world.tick()
    assert world.runs(B1)
    world.settle()
    assert world.state(operation_id) is FAILED
    assert world.running() == set()


def test_rollback_leaves_up_what_something_else_that_runs_has_come_to_need() -> None:
    world = world_of([spec(n) for n in "abx"], Edge("b", "a"))
    up(world, "b")
    world.kill(A1)
    world.behaviours = {Instance("x", "n1"): Behaviour(exits_after=2.0, ready_after=5.0)}
    operation_id = world.request(Kind.STARTUP, on_failure=OnFailure.ROLLBACK)
    world.settle()
    assert world.running() == {"a", "b"}
    assert "b@n1 still runs and needs it" in {s.detail for s in world.operation(operation_id).steps}


def test_rollback_leaves_alone_what_has_changed_hands_meanwhile() -> None:
    """a was started by the operation, and then by somebody else, as a recovery does: the new order is not its own."""
    world = world_of([spec("a"), spec("b")])
    world.behaviours = {B1: Behaviour(ready_after=5.0, exits_after=3.0)}
    operation_id = world.request(Kind.STARTUP, on_failure=OnFailure.ROLLBACK)
    world.lead()
    world.tick()
    world.tick(1.0)
    world.lead()
    world.desired[A1] = Desired(run=True, generation=2, reason="recovery", wanted=True)
    world.settle()
    assert world.running() == {"a"}
    assert world.step_states(operation_id)["undo a@n1"] == "succeeded"


def test_keep_starts_nothing_more_when_a_failure_shows_only_as_the_start_is_due() -> None:
    world = chain()
    world.specs = {"c": world.specs["c"], "b": world.specs["b"], "a": world.specs["a"], "d": spec("d")}
    world.edges.append(Edge("d", "a"))
    operation_id = world.request(Kind.STARTUP, on_failure=OnFailure.KEEP)
    world.lead()
    del world.specs["b"]
    world.settle()
    assert world.step(operation_id, "start", "b@n1").detail == "its spec is gone"
    assert world.running() == {"a"}


def test_the_policy_of_the_request_goes_before_those_of_the_services() -> None:
    world = forked_world(OnFailure.ROLLBACK)
    world.request(Kind.STARTUP, on_failure=OnFailure.CONTINUE)
    world.settle()
    assert world.running() == {"a", "b", "x"}


@pytest.mark.parametrize(
    ("policies", "left"),
    [
        ((OnFailure.CONTINUE, OnFailure.KEEP), {"c"}),
        ((OnFailure.KEEP, OnFailure.ROLLBACK), set()),
        ((OnFailure.CONTINUE, OnFailure.CONTINUE), {"c", "d"}),
    ],
)
def test_of_several_failures_the_strictest_policy_holds(policies: tuple[OnFailure, OnFailure], left: set[str]) -> None:
    services = [spec("a", on_failure=policies[0]), spec("b", on_failure=policies[1]), spec("c"), spec("d")]
    world = world_of(services, Edge("d", "c"))
    world.behaviours = {i: Behaviour(cannot_start=True) for i in (A1, B1)}
    world.request(Kind.STARTUP)
    world.settle()
    assert world.running() == left


# --- what a crash of the leader leaves behind ---------------------------------------------------------------------


def lead_until_ordered(world: World, instance: Instance) -> None:
    """A leader that dies right after it wrote the order to ``instance``, and before it wrote the step."""
    orders = [getattr(action, "instance", None) for action in world.decide()]
    world.lead(until=orders.index(instance) + 1)


def test_a_start_that_failed_before_its_step_was_written_is_not_tried_again() -> None:
    world = world_of([spec("a")])
    world.behaviours = {A1: Behaviour(exits_after=0.0)}
    operation_id = world.request(Kind.STARTUP)
    lead_until_ordered(world, A1)
    world.tick()
    world.tick()
    assert world.observed[A1].phase is Phase.EXITED
    world.settle()
    assert world.state(operation_id) is FAILED
    assert world.executions == {(A1, 1): 1}


def test_a_start_that_was_ordered_before_the_crash_is_under_way_also_when_it_is_cancelled_after() -> None:
    world = world_of([spec("a")])
    operation_id = world.request(Kind.STARTUP)
    lead_until_ordered(world, A1)
    world.cancel(operation_id)
    world.settle()
    assert world.step_states(operation_id) == {"start a@n1": "succeeded"}
    assert world.state(operation_id) is CANCELLED


def test_an_order_that_was_taken_back_before_the_crash_is_not_taken_back_again() -> None:
    world = world_of([spec("a")], silent={"n1"})
    operation_id = world.request(Kind.STARTUP)
    world.lead()
    world.tick(10.0)
    lead_until_ordered(world, A1)
    world.settle()
    assert world.state(operation_id) is FAILED
    assert world.desired[A1].generation == 2


# --- shutdown -----------------------------------------------------------------------------------------------------


def test_a_shutdown_takes_everything_down_from_the_top() -> None:
    world = up(chain())
    operation_id = world.request(Kind.SHUTDOWN)
    world.settle()
    assert [str(s.instance) for s in world.operation(operation_id).steps] == ["c@n1", "b@n1", "a@n1"]
    assert world.running() == set()
    assert world.now - BEGIN == 6.0


def test_a_shutdown_under_running_dependents_is_refused_and_says_what_it_would_take_down() -> None:
    world = up(chain())
    operation_id = world.request(Kind.SHUTDOWN, "a")
    world.settle()
    assert world.state(operation_id) is FAILED
    assert world.heads[operation_id].detail == "stopping a would take down c, b; ask for it with --cascade"
    assert world.running() == {"a", "b", "c"}


def test_a_cascading_shutdown_takes_the_dependents_down_first() -> None:
    world = up(chain())
    world.request(Kind.SHUTDOWN, "b", cascade=True)
    world.settle()
    assert world.running() == {"a"}


def test_a_shutdown_needs_no_cascade_when_its_dependents_are_down() -> None:
    world = up(chain(), "a")
    operation_id = world.request(Kind.SHUTDOWN, "a")
    world.settle()
    assert world.state(operation_id) is SUCCEEDED


@pytest.mark.parametrize("strength", [Strength.SOFT, Strength.MILESTONE])
def test_a_dependency_by_a_soft_or_milestone_edge_may_go_alone(strength: Strength) -> None:
    world = up(world_of([spec("a"), spec("b")], Edge("a", "b", strength=strength)))
    operation_id = world.request(Kind.SHUTDOWN, "b")
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert world.running() == {"a"}


@pytest.mark.parametrize("strength", list(Strength))
def test_every_edge_gives_the_order_among_what_is_stopped_together(strength: Strength) -> None:
    world = up(world_of([spec("b"), spec("a")], Edge("a", "b", strength=strength)))
    begin = world.now
    world.request(Kind.SHUTDOWN)
    world.settle()
    assert [world.observed[i].since - begin for i in (A1, B1)] == [1.0, 2.0]


def test_what_has_completed_may_go_without_its_dependents() -> None:
    world = world_of([spec("a"), spec("b", oneshot=True)], Edge("a", "b", condition=Condition.COMPLETED))
    world.behaviours = {B1: Behaviour(exits_after=1.0, exits_well=True)}
    up(world)
    operation_id = world.request(Kind.SHUTDOWN, "b")
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert world.running() == {"a"}


@pytest.mark.parametrize(
    ("needed", "targets", "refused"),
    [(2, ("d@n1",), False), (2, ("d@n1", "d@n2"), True), (1, ("d@n1", "d@n2"), False), (None, ("d@n3",), True)],
)
def test_min_instances_lets_instances_go_as_long_as_k_stay(
    needed: int | None, targets: tuple[str, ...], refused: bool
) -> None:
    world = up(world_of([spec("a"), spec("d", "n1", "n2", "n3")], Edge("a", "d", min_instances=needed)))
    operation_id = world.request(Kind.SHUTDOWN, *targets)
    world.settle()
    assert world.state(operation_id) is (FAILED if refused else SUCCEEDED)
    assert len(world.processes) == (4 if refused else 4 - len(targets))


def test_of_two_instances_of_which_one_has_to_stay_only_one_is_told_to_stop_at_a_time() -> None:
    world = up(world_of([spec("a"), spec("d", "n1", "n2")], Edge("a", "d", min_instances=1)))
    world.behaviours = {A1: Behaviour(stop_after=4.0)}
    world.request(Kind.SHUTDOWN)
    world.lead()
    assert [world.desired[i].run for i in (A1, D1, D2)].count(False) == 2


def test_a_stop_that_hangs_fails_after_its_time_out_and_what_it_needs_stays_up() -> None:
    world = chain(b=Behaviour(unkillable=True))
    up(world)
    operation_id = world.request(Kind.SHUTDOWN)
    world.settle()
    assert world.step_states(operation_id) == {"stop c@n1": "succeeded", "stop b@n1": "failed", "stop a@n1": "skipped"}
    assert world.step(operation_id, "stop", "b@n1").detail == "not stopped after 15 s"
    assert world.step(operation_id, "stop", "a@n1").detail == "b@n1 still runs and needs it"


def test_a_stop_on_a_node_without_agent_says_so() -> None:
    world = up(world_of([spec("a")]))
    world.silent = {"n1"}
    operation_id = world.request(Kind.SHUTDOWN)
    world.settle()
    assert world.step(operation_id, "stop", "a@n1").detail == "not stopped after 15 s: no node agent runs on n1"


def test_a_stop_without_grace_kills_at_once() -> None:
    world = up(world_of([spec("a")]))
    world.behaviours = {A1: Behaviour(stop_after=None)}
    begin = world.now
    world.request(Kind.SHUTDOWN, graceful=False)
    world.settle()
    assert (world.desired[A1].grace_seconds, world.now) == (0.0, begin)


def test_a_stop_without_grace_cuts_short_one_with_grace_that_is_under_way() -> None:
    world = up(world_of([spec("a", stop_timeout_seconds=500.0)]))
    world.behaviours = {A1: Behaviour(stop_after=None)}
    world.request(Kind.SHUTDOWN, timeout_seconds=20.0)
    forced = world.request(Kind.SHUTDOWN, graceful=False)
    begin = world.now
    world.settle()
    assert world.state(forced) is SUCCEEDED
    assert world.now == begin + 20.0


def test_what_exited_is_not_started_again_by_the_shutdown_of_another() -> None:
    world = up(chain())
    world.kill(C1)
    world.request(Kind.SHUTDOWN, "b", cascade=True)
    world.settle()
    assert not world.desired[C1].run


def test_a_shutdown_that_takes_over_the_stop_of_a_restart_leaves_nothing_to_come_back() -> None:
    world = up(world_of([spec("a")]))
    world.behaviours = {A1: Behaviour(stop_after=8.0)}
    world.request(Kind.RESTART, "a", timeout_seconds=2.0)
    shutdown = world.request(Kind.SHUTDOWN, "a")
    world.settle()
    assert world.state(shutdown) is SUCCEEDED
    assert not world.desired[A1].wanted
    assert world.executions == {(A1, 1): 1}


# --- what stood in the store is gone ---------------------------------------------------------------------------------


def test_a_start_whose_order_was_lost_is_taken_over_and_not_given_twice() -> None:
    world = chain(a=Behaviour(ready_after=5.0))
    operation_id = world.request(Kind.STARTUP)
    world.lead()
    world.tick(1.0)
    del world.desired[A1]
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert world.executions == {(A1, 1): 1, (B1, 1): 1, (C1, 1): 1}
    assert world.desired[A1].run


def test_a_stop_whose_order_was_lost_is_ordered_again() -> None:
    world = up(chain(c=Behaviour(stop_after=5.0)))
    operation_id = world.request(Kind.SHUTDOWN)
    world.lead()
    world.tick(1.0)
    del world.desired[C1]
    world.orders.clear()  # what nobody can know any more has to be said again
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert world.running() == set()


# --- restart and recover ------------------------------------------------------------------------------------------


def test_a_restart_in_place_leaves_dependents_up() -> None:
    world = up(chain())
    operation_id = world.request(Kind.RESTART, "a")
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert world.executions == {(A1, 1): 1, (A1, 3): 1, (B1, 1): 1, (C1, 1): 1}


def test_a_cascading_restart_stops_the_running_dependents_before_and_starts_them_after() -> None:
    world = up(chain())
    begin = world.now - BEGIN
    operation_id = world.request(Kind.RESTART, "a", cascade=True)
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert [started_at(world, i) - begin for i in (A1, B1, C1)] == [3.0, 4.0, 5.0]


@pytest.mark.parametrize("cascade", [True, False])
def test_a_restart_starts_nothing_again_under_which_something_has_yet_to_stop(cascade: bool) -> None:
    """One instance of d is down before the other: started at once, it would keep a from being stopped."""
    world = up(world_of([spec("d", "n1", "n2"), spec("a")], Edge("d", "a")))
    world.behaviours = {D1: Behaviour(stop_after=5.0)}
    operation_id = world.request(Kind.RESTART, "all", cascade=cascade)
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert [world.executions[i, 3] for i in (A1, D1, D2)] == [1, 1, 1]
    assert started_at(world, D2) > started_at(world, A1)


def test_a_cascading_restart_does_not_start_dependents_that_were_down() -> None:
    world = up(chain(), "b")
    world.request(Kind.RESTART, "a", cascade=True)
    world.settle()
    assert world.running() == {"a", "b"}


def test_a_cascading_restart_leaves_up_what_a_dependent_that_will_not_stop_needs() -> None:
    world = up(chain(c=Behaviour(unkillable=True)))
    operation_id = world.request(Kind.RESTART, "a", cascade=True)
    world.settle()
    assert world.state(operation_id) is FAILED
    assert world.running() == {"a", "b", "c"}
    assert world.step(operation_id, "stop", "b@n1").detail == "c@n1 still runs and needs it"


@pytest.mark.parametrize("on_recovery", list(OnRecovery))
def test_a_restart_has_dependents_do_what_their_edge_says(on_recovery: OnRecovery) -> None:
    world = up(world_of([spec("a"), spec("b")], Edge("a", "b", on_recovery=on_recovery)))
    world.request(Kind.RESTART, "b")
    world.settle()
    told = [event.message for event in world.events if event.kind == "dependency-recovered"]
    restarted, reloaded = world.executions[A1, 3] == 1, world.reloads[A1] == 1
    expected: dict[OnRecovery, tuple[bool, bool, list[str]]] = {
        OnRecovery.RESTART: (True, False, []),
        OnRecovery.RELOAD: (False, True, ["a@n1 is to reload, since b came back"]),
        OnRecovery.NOTIFY: (False, False, ["a@n1 was told that b came back"]),
        OnRecovery.NONE: (False, False, []),
    }
    assert (restarted, reloaded, told) == expected[on_recovery]


def test_a_restart_that_an_edge_asks_for_comes_after_the_dependency_is_back() -> None:
    world = up(world_of([spec("a"), spec("b")], Edge("a", "b", on_recovery=OnRecovery.RESTART)))
    begin = world.now - BEGIN
    world.request(Kind.RESTART, "b")
    world.settle()
    assert [started_at(world, i) - begin for i in (B1, A1)] == [1.0, 3.0]


def test_the_restarts_that_edges_ask_for_go_on_up_the_graph() -> None:
    edges = [Edge(a, b, on_recovery=OnRecovery.RESTART) for a, b in (("c", "b"), ("b", "a"))]
    world = up(world_of([spec(n) for n in "abc"], *edges))
    world.request(Kind.RESTART, "a")
    world.settle()
    assert all(world.executions[i, 3] == 1 for i in (A1, B1, C1))


def test_nothing_is_restarted_or_told_when_the_dependency_does_not_come_back() -> None:
    edges = [Edge("b", "a", on_recovery=OnRecovery.RESTART), Edge("c", "a", on_recovery=OnRecovery.NOTIFY)]
    world = up(world_of([spec(n) for n in "abc"], *edges))
    world.behaviours = {A1: Behaviour(cannot_start=True)}
    operation_id = world.request(Kind.RESTART, "a")
    world.settle()
    assert world.step_states(operation_id) == {
        "stop a@n1": "succeeded",
        "start a@n1": "failed",
        "stop b@n1": "skipped",
        "start b@n1": "skipped",
        "notify c@n1": "skipped",
    }
    assert world.running() == {"b", "c"}


def test_a_restart_of_what_is_down_starts_it() -> None:
    world = world_of([spec("a")])
    world.request(Kind.RESTART, "a")
    world.settle()
    assert world.running() == {"a"}


def test_a_restart_is_never_rolled_back() -> None:
    world = up(world_of([spec("a", on_failure=OnFailure.ROLLBACK), spec("b")]))
    world.behaviours = {A1: Behaviour(cannot_start=True)}
    operation_id = world.request(Kind.RESTART, "a")
    world.settle()
    assert world.state(operation_id) is FAILED
    assert not any(step.undo for step in world.operation(operation_id).steps)


def test_a_recovery_takes_only_the_broken_instances() -> None:
    world = up(world_of([spec("d", "n1", "n2", "n3")]))
    world.kill(D2)
    operation_id = world.request(Kind.RECOVER, "d")
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert world.step_states(operation_id) == {"stop d@n2": "succeeded", "start d@n2": "succeeded"}
    assert len(world.processes) == 3


def test_a_recovery_takes_an_instance_whose_checks_fail() -> None:
    world = up(world_of([spec("d", "n1", "n2")]))
    world.behaviours = {D1: Behaviour(critical=True)}
    operation_id = world.request(Kind.RECOVER, "d")
    world.lead()
    assert {str(step.instance) for step in world.operation(operation_id).steps} == {"d@n1"}


def test_a_recovery_of_a_sound_service_restarts_all_of_it() -> None:
    world = up(world_of([spec("d", "n1", "n2")]))
    world.request(Kind.RECOVER, "d")
    world.settle()
    assert all(world.executions[i, 3] == 1 for i in (D1, D2))


# --- requests that come to nothing --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nope", "unknown service 'nope'"),
        ("nope@n1", "unknown service 'nope'"),
        ("a@n9", "service 'a' has no instance on node 'n9'"),
    ],
)
def test_an_unknown_target_is_refused(kind: Kind, target: str, said: str) -> None:
    world = world_of([spec("a")])
    operation_id = world.request(kind, "a", target)
    world.settle()
    assert (world.state(operation_id), world.heads[operation_id].detail) == (FAILED, said)
    assert world.desired == {}


@pytest.mark.parametrize("kind", list(Kind))
def test_an_operation_on_an_empty_stack_succeeds_at_once(kind: Kind) -> None:
    world = world_of([])
    operation_id = world.request(kind)
    world.lead()
    assert world.state(operation_id) is SUCCEEDED


# --- cancelling ---------------------------------------------------------------------------------------------------


def test_a_cancelled_operation_begins_nothing_more_and_ends_when_what_it_began_has() -> None:
    world = chain()
    operation_id = world.request(Kind.STARTUP)
    world.lead()
    world.cancel(operation_id, "kim")
    world.settle()
    assert world.running() == {"a"}
    assert (world.state(operation_id), world.heads[operation_id].detail) == (CANCELLED, "cancelled by kim")
    assert world.step(operation_id, "start", "b@n1").detail == "cancelled by kim"


def test_an_operation_that_is_cancelled_before_it_began_does_nothing() -> None:
    world = chain()
    operation_id = world.request(Kind.STARTUP)
    world.cancel(operation_id, "kim")
    world.settle()
    assert world.state(operation_id) is CANCELLED
    assert world.desired == {}


def test_a_rollback_goes_on_when_it_is_cancelled() -> None:
    world = chain(b=Behaviour(cannot_start=True))
    operation_id = world.request(Kind.STARTUP, on_failure=OnFailure.ROLLBACK)
    while world.state(operation_id) is not OperationState.ROLLING_BACK:
        world.tick(0.5)
        world.lead()
    world.cancel(operation_id)
    world.settle()
    assert world.state(operation_id) is CANCELLED
    assert world.running() == set()


# --- operations side by side --------------------------------------------------------------------------------------


def test_operations_on_different_services_run_side_by_side() -> None:
    world = world_of([spec("a"), spec("b")])
    first, second = world.request(Kind.STARTUP, "a"), world.request(Kind.STARTUP, "b")
    world.lead()
    assert {world.state(first), world.state(second)} == {OperationState.RUNNING}


def test_an_operation_that_overlaps_a_running_one_waits_and_says_for_which() -> None:
    world = world_of([spec("a"), spec("b")])
    first, second = world.request(Kind.STARTUP), world.request(Kind.SHUTDOWN, "b")
    world.lead()
    assert (world.state(second), world.heads[second].waits_for) == (OperationState.PENDING, first)
    world.settle()
    assert (world.state(second), world.heads[second].waits_for) == (SUCCEEDED, None)
    assert world.running() == {"a"}


def test_no_operation_overtakes_an_older_one_that_waits() -> None:
    world = world_of([spec("a"), spec("b")])
    world.request(Kind.STARTUP, "a")
    wide, narrow = world.request(Kind.RESTART), world.request(Kind.STARTUP, "b")
    world.lead()
    assert world.heads[narrow].waits_for == wide
    assert B1 not in world.desired


def test_a_waiting_operation_is_planned_by_what_is_true_when_its_turn_comes() -> None:
    world = chain()
    world.request(Kind.STARTUP)
    refused = world.request(Kind.SHUTDOWN, "a")
    world.lead()
    assert world.state(refused) is OperationState.PENDING
    world.settle()
    assert world.heads[refused].detail == "stopping a would take down c, b; ask for it with --cascade"


def test_the_oldest_operation_goes_first_in_whatever_order_they_are_listed() -> None:
    world = world_of([spec("a")])
    first, second = world.request(Kind.STARTUP), world.request(Kind.SHUTDOWN)
    world.heads = dict(reversed(world.heads.items()))
    world.lead()
    assert (world.state(first), world.state(second)) == (OperationState.RUNNING, OperationState.PENDING)


# --- deciding -----------------------------------------------------------------------------------------------------


def test_nothing_is_decided_when_there_is_nothing_to_do() -> None:
    assert up(chain()).decide() == []


def test_what_waits_for_a_time_out_asks_to_be_woken_then() -> None:
    world = world_of([spec("a")])
    world.request(Kind.STARTUP)
    world.lead()
    assert world.decide() == [WakeAt(BEGIN + 10.0)]


def test_an_instance_that_runs_without_an_order_is_taken_over_by_a_startup() -> None:
    """Its desired state was lost, as when a node's document was deleted by hand."""
    world = world_of([spec("a")])
    up(world)
    del world.desired[A1]
    operation_id = world.request(Kind.STARTUP)
    world.settle()
    assert world.state(operation_id) is SUCCEEDED
    assert world.executions == {(A1, 1): 1}


def test_an_instance_that_runs_without_an_order_on_a_silent_node_is_not_told_to_stop() -> None:
    world = world_of([spec("a")])
    up(world)
    del world.desired[A1]
    world.silent = {"n1"}
    operation_id = world.request(Kind.STARTUP)
    world.settle()
    assert world.state(operation_id) is FAILED
    assert world.desired[A1].run


def test_deciding_leaves_the_snapshot_as_it_was() -> None:
    world = chain()
    world.request(Kind.STARTUP)
    snapshot = world.snapshot()
    before = replace(snapshot, desired=dict(snapshot.desired), observed=dict(snapshot.observed))
    world.decide()
    assert snapshot == before


def test_an_answer_to_an_older_order_counts_for_nothing() -> None:
    world = world_of([spec("a"), spec("b")], Edge("b", "a"), silent={"n1"})
    world.desired[A1] = Desired(run=True, generation=4, wanted=True)
    world.observed[A1] = Observed(3, Phase.COMPLETED, BEGIN)
    world.request(Kind.STARTUP, "b")
    world.lead()
    assert B1 not in world.desired
