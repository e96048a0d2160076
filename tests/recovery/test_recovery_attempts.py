"""One failing service: the first attempt at once, then within its budget, then never again (I5)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from clinic import Behaviour, Clinic, clinic_of, crashing, patient

from citadel_consul.core.actions import SetDesired, WriteOperation
from citadel_consul.core.health import Status, service_status
from citadel_consul.core.incident import IncidentState
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Edge, Instance
from citadel_consul.core.operation import Kind, OperationState, StepAction

A1, B1 = Instance("a", "n1"), Instance("b", "n1")


def loop(clinic: Clinic, service: str, behaviour: Behaviour) -> None:
    """Let ``service`` behave so from its next start on, and end what runs."""
    for instance in clinic.specs[service].instances:
        clinic.behaviours[instance] = behaviour
    clinic.kill_hard(service)


def test_a_killed_service_is_ordered_to_start_in_the_turn_that_sees_its_exit() -> None:
    clinic = clinic_of([patient("a")])
    clinic.kill_hard("a")
    actions = clinic.lead()
    orders = [action for action in actions if isinstance(action, SetDesired)]
    assert [(order.instance, order.desired.run) for order in orders] == [(A1, True)]
    assert [a.operation.state for a in actions if isinstance(a, WriteOperation)] == [OperationState.RUNNING]


def test_what_has_died_is_not_stopped_first() -> None:
    clinic = clinic_of([patient("a")])
    clinic.kill_hard("a")
    clinic.pass_time(5.0)
    assert clinic.terminations.total() == 0
    stop, start = clinic.automatic()[0].steps
    assert (stop.action, stop.detail, stop.generation) == (StepAction.STOP, "not running", None)
    assert start.action is StepAction.START
    assert clinic.starts("a") == 2


def test_an_incident_opens_once_and_closes_once_after_a_calm_moment() -> None:
    clinic = clinic_of([patient("a")])
    clinic.kill_hard("a")
    clinic.pass_time(9.0)
    assert clinic.incident("a").state is IncidentState.RECOVERING
    clinic.pass_time(10.0)
    incident = clinic.incident("a")
    assert (incident.state, incident.attempts) == (IncidentState.CLOSED, 1)
    assert (incident.cause, incident.detail) == ("process_exit", "a@n1: killed by SIGKILL")
    assert clinic.told("incident-opened") == ["a fails: a@n1: killed by SIGKILL"]
    assert clinic.told("incident-closed") == ["a: healthy again after 1 attempt"]
    assert incident.operations == tuple(op.id for op in clinic.automatic())


def test_i5_a_crash_looping_service_is_tried_as_often_as_its_policy_says_and_then_left_alone() -> None:
    clinic = clinic_of([patient("a", attempts=4), patient("b")])
    before = clinic.starts("b")
    loop(clinic, "a", crashing())
    clinic.pass_time(300.0)
    assert clinic.starts("a") == 1 + 4
    assert len(clinic.automatic()) == 4
    assert clinic.incident("a").state is IncidentState.GAVE_UP
    assert clinic.told("gave-up") == ["a has failed for good after 4 attempts: a@n1: it exited"]
    assert clinic.told("incident-opened") == ["a fails: a@n1: killed by SIGKILL"]
    assert service_status(clinic.snapshot(), "a", clinic.now) is Status.FAILED
    assert clinic.starts("b") == before
    clinic.pass_time(3_000.0)
    assert clinic.starts("a") == 1 + 4


def test_what_does_not_depend_on_a_given_up_service_is_recovered_as_ever() -> None:
    clinic = clinic_of([patient("a", attempts=1), patient("b")])
    loop(clinic, "a", crashing())
    clinic.pass_time(60.0)
    assert clinic.incident("a").state is IncidentState.GAVE_UP
    clinic.kill_hard("b")
    clinic.pass_time(5.0)
    assert clinic.starts("b") == 2


def test_the_delays_between_attempts_are_those_that_the_policy_drew() -> None:
    clinic = clinic_of([patient("a", attempts=5)])
    loop(clinic, "a", crashing(0.0))
    began = clinic.now
    clinic.pass_time(200.0)
    attempts = [op.requested_at for op in clinic.automatic()]
    assert attempts[0] == began
    drawn = [later - earlier for earlier, later in pairwise(attempts)]
    bounds = [4.0, 8.0, 16.0, 32.0]
    assert all(0.0 <= delay <= bound for delay, bound in zip(drawn, bounds, strict=True))
    assert len(set(drawn)) == 4


def test_the_total_time_of_a_bout_is_a_budget_too() -> None:
    clinic = clinic_of([patient("a", attempts=1000, delay_seconds=1.0, max_delay_seconds=1.0, total_seconds=10.0)])
    loop(clinic, "a", crashing(0.5))
    clinic.pass_time(100.0)
    assert clinic.incident("a").state is IncidentState.GAVE_UP
    attempts = [op.requested_at for op in clinic.automatic()]
    assert 5 < len(attempts) < 40
    assert attempts[-1] <= attempts[0] + 10.0 + 1.0


def test_citadel_recover_makes_the_budget_whole_again() -> None:
    clinic = clinic_of([patient("a", attempts=2)])
    loop(clinic, "a", crashing())
    clinic.pass_time(60.0)
    assert clinic.incident("a").state is IncidentState.GAVE_UP
    clinic.behaviours[A1] = Behaviour()
    operation = clinic.request(Kind.RECOVER, "a")
    clinic.pass_time(3.0)
    assert clinic.state(operation) is OperationState.SUCCEEDED
    assert (clinic.incident("a").state, clinic.incident("a").attempts) == (IncidentState.OPEN, 0)
    clinic.kill_hard("a")
    clinic.pass_time(3.0)
    assert clinic.incident("a").attempts == 1
    assert clinic.healthy() == {"a"}


def test_a_repair_that_fails_forgives_nothing() -> None:
    clinic = clinic_of([patient("a", attempts=2)])
    loop(clinic, "a", crashing())
    clinic.pass_time(60.0)
    operation = clinic.request(Kind.RECOVER, "a")
    clinic.pass_time(60.0)
    assert clinic.state(operation) is OperationState.FAILED
    assert clinic.incident("a").state is IncidentState.GAVE_UP
    assert len(clinic.automatic()) == 2


def test_a_repair_before_the_incident_forgives_nothing_by_whatever_clock_it_ended() -> None:
    clinic = clinic_of([patient("a", attempts=2)])
    ((startup, head),) = clinic.heads.items()
    clinic.heads[startup] = replace(head, ended_at=clinic.now + 0.5)  # the clock of that leader was ahead
    loop(clinic, "a", crashing())
    clinic.pass_time(60.0)
    assert clinic.incident("a").state is IncidentState.GAVE_UP
    assert len(clinic.automatic()) == 2


def test_a_service_that_dies_again_soon_is_in_the_same_bout() -> None:
    clinic = clinic_of([patient("a", attempts=3, reset_after_seconds=100.0)])
    for _ in range(3):
        clinic.kill_hard("a")
        clinic.pass_time(40.0)
    assert clinic.incident("a").attempts == 3
    clinic.kill_hard("a")
    clinic.pass_time(40.0)
    assert clinic.incident("a").state is IncidentState.GAVE_UP
    assert clinic.starts("a") == 1 + 3


def test_enough_health_ends_a_bout_and_the_next_attempt_is_immediate() -> None:
    clinic = clinic_of([patient("a", attempts=2, reset_after_seconds=50.0)])
    for _ in range(6):
        clinic.kill_hard("a")
        clinic.pass_time(0.0)
        assert clinic.incident("a").attempts == 1
        assert A1 in clinic.processes
        clinic.pass_time(60.0)
    assert clinic.starts("a") == 1 + 6


def test_enough_health_ends_a_bout_also_while_the_incident_is_still_open() -> None:
    clinic = clinic_of([patient("a", attempts=2, reset_after_seconds=3.0)])
    for _ in range(6):
        clinic.kill_hard("a")
        clinic.pass_time(8.0)  # healthy for longer than it takes, and not for as long as its incident stays open
        incident = clinic.incident("a")
        assert incident.state is IncidentState.RECOVERING
        assert incident.attempts == 1
    assert clinic.told("incident-closed") == clinic.told("gave-up") == []
    assert clinic.starts("a") == 1 + 6


def test_a_service_that_came_back_by_itself_closes_its_incident() -> None:
    clinic = clinic_of([patient("a", enabled=False)])
    clinic.hang("a")
    clinic.pass_time(5.0)
    assert clinic.incident("a").state is IncidentState.OPEN
    clinic.cure("a")
    clinic.pass_time(11.0)
    assert (clinic.incident("a").state, clinic.incident("a").outcome) == (IncidentState.CLOSED, "healthy again")


def test_without_recovery_a_failure_is_said_and_nothing_is_done() -> None:
    clinic = clinic_of([patient("a", enabled=False)])
    clinic.kill_hard("a")
    clinic.pass_time(100.0)
    assert clinic.starts("a") == 1
    assert clinic.told("incident-opened") == ["a fails: a@n1: killed by SIGKILL"]
    assert "switched off" in clinic.incident("a").waits_for


def test_a_service_that_nobody_wants_any_more_has_no_incident() -> None:
    clinic = clinic_of([patient("a", attempts=1)])
    loop(clinic, "a", crashing())
    clinic.pass_time(60.0)
    clinic.request(Kind.SHUTDOWN, "a")
    clinic.pass_time(1.0)
    incident = clinic.incident("a")
    assert (incident.state, incident.outcome) == (IncidentState.CLOSED, "it is not wanted any more")
    assert A1 not in clinic.processes


def test_a_stop_by_order_is_no_failure() -> None:
    clinic = clinic_of([patient("a"), patient("b")], Edge("b", "a"))
    clinic.request(Kind.SHUTDOWN)
    clinic.pass_time(30.0)
    assert clinic.incidents == {}


def test_only_the_instances_that_fail_are_restarted() -> None:
    clinic = clinic_of([patient("a", "n1", "n2", "n3")])
    victim = Instance("a", "n2")
    clinic._end(victim, Phase.EXITED, detail="killed by SIGKILL", exit_signal=9)
    clinic.pass_time(5.0)
    assert clinic.automatic()[0].targets == ("a@n2",)
    assert clinic.starts("a") == 3 + 1


def test_a_start_that_the_backend_refuses_is_tried_within_the_budget() -> None:
    clinic = clinic_of([patient("a", attempts=2)])
    loop(clinic, "a", Behaviour(cannot_start=True))
    clinic.pass_time(100.0)
    assert clinic.incident("a").state is IncidentState.GAVE_UP
    assert clinic.observed[A1].phase is Phase.FAILED
    assert len(clinic.automatic()) == 2


def test_a_service_on_a_node_without_agent_is_left_alone_until_the_agent_is_back() -> None:
    clinic = clinic_of([patient("a")])
    clinic.kill_hard("a")
    clinic.silent = {"n1"}
    clinic.pass_time(100.0)
    assert clinic.incidents == {}
    clinic.silent = set()
    clinic.pass_time(5.0)
    assert clinic.starts("a") == 2


def test_an_attempt_whose_write_was_cut_short_is_counted_before_it_is_made() -> None:
    clinic = clinic_of([patient("a", attempts=1)])
    clinic.kill_hard("a")
    clinic.lead(until=1)
    assert clinic.incident("a").attempts == 1
    assert A1 not in clinic.processes
    clinic.pass_time(60.0)
    assert clinic.incident("a").state is IncidentState.GAVE_UP
