"""What a snapshot says of an instance and of an edge, and the rules of order that rest on it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import World, spec

from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Condition, Edge, Instance, Strength
from citadel_consul.core.operation import Step, StepAction, StepState
from citadel_consul.core.rules import holding_up, is_hopeless, steps_by_service, unmet_edges
from citadel_consul.core.snapshot import CheckStatus, Snapshot
from citadel_consul.core.worklist import Worklist

A1 = Instance("a", "n1")
D1, D2, D3 = (Instance("d", node) for node in ("n1", "n2", "n3"))
RUN, STOP = Desired(run=True, generation=2), Desired(run=False, generation=2)
STARTED, HEALTHY, COMPLETED = Condition.STARTED, Condition.HEALTHY, Condition.COMPLETED


def moment(desired: Desired | None, phase: Phase | None, generation: int = 2, *, oneshot: bool = False) -> Snapshot:
    """One instance of one service."""
    snapshot = World.of([spec("a", oneshot=oneshot)]).snapshot()
    return replace(
        snapshot,
        desired={} if desired is None else {A1: desired},
        observed={} if phase is None else {A1: Observed(generation, phase, 0.0)},
    )


@pytest.mark.parametrize(
    ("desired", "phase", "generation", "alive", "down"),
    [
        (None, None, 0, False, True),
        (None, Phase.READY, 1, True, False),
        (None, Phase.EXITED, 1, False, True),
        (RUN, None, 0, True, False),
        (RUN, Phase.STOPPED, 1, True, False),
        (RUN, Phase.STARTING, 2, True, False),
        (RUN, Phase.READY, 2, True, False),
        (RUN, Phase.EXITED, 2, False, False),
        (RUN, Phase.FAILED, 2, False, False),
        (RUN, Phase.COMPLETED, 2, False, False),
        (STOP, None, 0, False, True),
        (STOP, Phase.READY, 1, True, False),
        (STOP, Phase.STOPPING, 1, True, False),
        (STOP, Phase.STOPPED, 2, False, True),
        (STOP, Phase.EXITED, 1, False, True),
    ],
)
def test_an_instance_is_alive_when_it_runs_or_may_be_about_to(
    desired: Desired | None, phase: Phase | None, generation: int, alive: bool, down: bool
) -> None:
    snapshot = moment(desired, phase, generation)
    assert (snapshot.is_alive(A1), snapshot.is_down(A1)) == (alive, down)


@pytest.mark.parametrize(
    ("phase", "met"),
    [
        (Phase.STOPPED, set()),
        (Phase.STARTING, {STARTED}),
        (Phase.READY, {STARTED, HEALTHY}),
        (Phase.STOPPING, set()),
        (Phase.EXITED, set()),
        (Phase.COMPLETED, {STARTED, COMPLETED}),
        (Phase.FAILED, set()),
    ],
)
def test_each_phase_meets_its_conditions_if_it_is_wanted_and_of_this_generation(
    phase: Phase, met: set[Condition]
) -> None:
    for snapshot, expected in (
        (moment(RUN, phase), met),
        (moment(RUN, phase, oneshot=True), met | ({HEALTHY} if phase is Phase.COMPLETED else set())),
        (moment(RUN, phase, generation=1), set()),
        (moment(STOP, phase), set()),
        (moment(None, phase), set()),
    ):
        assert {condition for condition in Condition if snapshot.meets(A1, condition)} == expected


@pytest.mark.parametrize(
    ("status", "healthy"),
    [
        (CheckStatus.PASSING, True),
        (CheckStatus.WARNING, True),
        (CheckStatus.CRITICAL, False),
        (CheckStatus.MAINTENANCE, False),
    ],
)
def test_the_checks_decide_whether_what_is_ready_is_healthy(status: CheckStatus, healthy: bool) -> None:
    snapshot = replace(moment(RUN, Phase.READY), checks={A1: status})
    assert snapshot.meets(A1, HEALTHY) is healthy
    assert snapshot.meets(A1, STARTED)


def test_what_was_pruned_meets_nothing_that_its_spec_would_have_to_say() -> None:
    snapshot = replace(moment(RUN, Phase.COMPLETED, oneshot=True), specs={})
    assert [snapshot.meets(A1, condition) for condition in (HEALTHY, COMPLETED)] == [False, True]
    assert snapshot.instances("a") == ()


# --- edges --------------------------------------------------------------------------------------------------------


def fleet(edge: Edge, ready: tuple[Instance, ...], *, dependent_runs: bool = True) -> Snapshot:
    """``a`` depends on ``d``, which has three instances, of which some are ready and the others have exited."""
    snapshot = World.of([spec("a"), spec("d", "n1", "n2", "n3")], [edge]).snapshot()
    wanted = dict.fromkeys((D1, D2, D3), RUN) | ({A1: RUN} if dependent_runs else {})
    seen = {i: Observed(2, Phase.READY if i in ready or i == A1 else Phase.EXITED, 0.0) for i in wanted}
    return replace(snapshot, desired=wanted, observed=seen)


@pytest.mark.parametrize("ready", range(4))
@pytest.mark.parametrize(("min_instances", "needed"), [(None, 3), (1, 1), (2, 2), (3, 3), (9, 3)])
def test_an_edge_holds_with_k_of_n(min_instances: int | None, needed: int, ready: int) -> None:
    edge = Edge("a", "d", min_instances=min_instances)
    snapshot = fleet(edge, (D1, D2, D3)[:ready])
    assert snapshot.needed(edge) == needed
    assert snapshot.spare(edge) == ready - needed
    assert snapshot.edge_met(edge) is (ready >= needed)
    assert snapshot.survives(edge, {D1}) is (max(0, ready - 1) >= needed)
    assert is_hopeless(snapshot, edge, {}) is (ready < needed)


def test_an_edge_to_a_service_without_instances_never_holds() -> None:
    edge = Edge("a", "gone")
    assert not fleet(edge, ()).edge_met(edge)


def test_an_edge_that_asks_for_completion_survives_every_stop() -> None:
    edge = Edge("a", "d", condition=COMPLETED)
    assert fleet(edge, ()).survives(edge, {D1, D2, D3})


def test_an_edge_is_not_hopeless_while_a_start_is_to_come() -> None:
    edge = Edge("a", "d", min_instances=2)
    waiting, failed = (Step("d", "n2", StepAction.START, state) for state in (StepState.WAITING, StepState.FAILED))
    snapshot = fleet(edge, (D1,))
    assert not is_hopeless(snapshot, edge, {"d": [waiting]})
    assert is_hopeless(snapshot, edge, {"d": [failed]})


@pytest.mark.parametrize(
    ("strength", "starting", "unmet"),
    [
        (Strength.HARD, False, True),
        (Strength.MILESTONE, False, True),
        (Strength.SOFT, False, False),
        (Strength.SOFT, True, True),
    ],
)
def test_a_soft_edge_keeps_from_starting_only_while_its_dependency_is_being_started(
    strength: Strength, starting: bool, unmet: bool
) -> None:
    edge = Edge("a", "d", strength=strength)
    steps = (Step("d", "n1", StepAction.START, StepState.RUNNING if starting else StepState.FAILED),)
    found = unmet_edges(fleet(edge, ()), "a", steps_by_service(steps, StepAction.START))
    assert found == ((edge,) if unmet else ())


@pytest.mark.parametrize(
    ("edge", "planned", "only_planned", "held"),
    [
        (Edge("a", "d"), False, False, True),
        (Edge("a", "d"), False, True, False),
        (Edge("a", "d"), True, True, True),
        (Edge("a", "d", strength=Strength.MILESTONE), False, False, False),
        (Edge("a", "d", strength=Strength.MILESTONE), True, False, True),
        (Edge("a", "d", strength=Strength.SOFT), True, False, True),
        (Edge("a", "d", min_instances=2), False, False, False),
        (Edge("a", "d", condition=COMPLETED), True, False, False),
    ],
)
def test_what_runs_holds_up_what_it_needs(edge: Edge, planned: bool, only_planned: bool, held: bool) -> None:
    stopping = {"a": [Step("a", "n1", StepAction.STOP)]} if planned else {}
    for runs in (True, False):
        snapshot = fleet(edge, (D1, D2, D3), dependent_runs=runs)
        found = list(holding_up(snapshot, D1, stopping, only_planned=only_planned))
        assert found == ([A1] if held and runs else [])


def test_stops_that_come_after_other_steps_are_not_plain() -> None:
    plain, follower = Step("a", "n1", StepAction.STOP), Step("b", "n1", StepAction.STOP, after=(0,))
    start = Step("a", "n1", StepAction.START, after=(0,))
    assert steps_by_service((plain, follower, start), StepAction.STOP) == {"a": [plain]}
    assert steps_by_service((plain, follower, start), StepAction.START) == {"a": [start]}


def test_a_worklist_forgets_what_rested_on_a_step_that_has_ended() -> None:
    edge = Edge("a", "d", strength=Strength.SOFT)
    steps = [Step("a", "n1", StepAction.START), Step("d", "n1", StepAction.START, StepState.RUNNING)]
    work = Worklist(fleet(edge, ()), steps)
    assert work.unmet("a") == (edge,)
    work.put(1, replace(steps[1], state=StepState.FAILED))
    assert work.unmet("a") == ()


def test_a_worklist_forgets_that_nothing_can_help_when_something_can_again() -> None:
    edge = Edge("a", "d", min_instances=1)
    steps = [Step("a", "n1", StepAction.START), Step("d", "n1", StepAction.START)]
    work = Worklist(fleet(edge, ()), steps)
    assert work.hopeless("a") is None
    work.put(1, replace(steps[1], state=StepState.SKIPPED))
    assert work.hopeless("a") == edge


def test_a_worklist_forgets_who_held_up_what_when_a_stop_has_ended() -> None:
    edge = Edge("a", "d", strength=Strength.SOFT)
    steps = [Step("a", "n1", StepAction.STOP), Step("d", "n1", StepAction.STOP)]
    work = Worklist(fleet(edge, (D1, D2, D3)), steps)
    assert [holder.running for holder in work.holders("d", only_planned=False)] == [(A1,)]
    work.put(0, replace(steps[0], state=StepState.SUCCEEDED))
    assert work.holders("d", only_planned=False) == ()


def test_time_outs_come_from_the_spec_or_else_from_the_settings() -> None:
    timed = World.of([spec("a", start_timeout_seconds=0.0, stop_timeout_seconds=3.0), spec("b")]).snapshot()
    assert [timed.start_timeout(s) for s in ("a", "b", "gone")] == [0.0, 10.0, 10.0]
    assert [timed.stop_timeout(s) for s in ("a", "b", "gone")] == [3.0, 5.0, 5.0]
