"""A hold stops every automatic action in its scope (I6), and nothing that a person asks for."""

from __future__ import annotations

import pytest
from clinic import Behaviour, clinic_of, patient

from citadel_consul.core.health import Status, service_status
from citadel_consul.core.model import Edge, Instance, OnRecovery
from citadel_consul.core.operation import Kind, OperationState, StepState

A1 = Instance("a", "n1")


@pytest.mark.parametrize(("scope", "name"), [("service", "a"), ("node", "n1"), ("stack", "")])
def test_i6_a_hold_stops_recovery_in_its_scope(scope: str, name: str) -> None:
    clinic = clinic_of([patient("a")])
    clinic.hold(scope, name)
    clinic.kill_hard("a")
    clinic.pass_time(600.0)
    assert clinic.starts("a") == 1
    assert clinic.automatic() == []
    assert clinic.incidents == {}
    assert service_status(clinic.snapshot(), "a", clinic.now) is Status.HELD


@pytest.mark.parametrize(("scope", "name"), [("service", "b"), ("node", "n2")])
def test_a_hold_elsewhere_stops_nothing(scope: str, name: str) -> None:
    clinic = clinic_of([patient("a"), patient("b", "n2")])
    clinic.hold(scope, name)
    clinic.kill_hard("a")
    clinic.pass_time(5.0)
    assert clinic.starts("a") == 2


def test_a_hold_ends_by_itself_and_recovery_begins_at_that_moment() -> None:
    clinic = clinic_of([patient("a")])
    end = clinic.now + 30.0
    clinic.hold("service", "a", until=end)
    clinic.kill_hard("a")
    clinic.pass_time(60.0)
    assert clinic.automatic()[0].requested_at == end


def test_a_hold_that_is_taken_back_lets_recovery_begin() -> None:
    clinic = clinic_of([patient("a")])
    clinic.hold("service", "a")
    clinic.kill_hard("a")
    clinic.pass_time(30.0)
    clinic.holds.clear()
    clinic.pass_time(5.0)
    assert clinic.starts("a") == 2


def test_a_hold_on_one_node_leaves_the_instances_of_others_to_recovery() -> None:
    clinic = clinic_of([patient("a", "n1", "n2")])
    clinic.hold("node", "n1")
    clinic.kill_hard("a")
    clinic.pass_time(5.0)
    assert clinic.automatic()[0].targets == ("a@n2",)


def test_i6_a_hold_stops_the_attempts_of_an_incident_that_is_open() -> None:
    clinic = clinic_of([patient("a", attempts=10)])
    clinic.behaviours[A1] = Behaviour(exits_after=0.5)
    clinic.kill_hard("a")
    clinic.pass_time(2.0)
    clinic.hold("service", "a")
    made = len(clinic.automatic())
    clinic.pass_time(300.0)
    assert len(clinic.automatic()) == made
    assert clinic.incident("a").waits_for == "a hold stands on it"


def test_i6_a_hold_stops_what_an_automatic_operation_has_not_begun() -> None:
    clinic = clinic_of([patient("db"), patient("a"), patient("x")], Edge("a", "db", on_recovery=OnRecovery.RESTART))
    clinic.kill_hard("db")
    clinic.lead()
    clinic.hold("service", "a")
    clinic.pass_time(30.0)
    assert clinic.starts("db") == 2
    assert clinic.starts("a") == 1
    assert A1 in clinic.processes
    skipped = [step for step in clinic.automatic()[0].steps if step.service == "a"]
    assert [step.state for step in skipped] == [StepState.SKIPPED, StepState.SKIPPED]
    assert skipped[0].detail == "held by op"


def test_a_restart_that_a_hold_interrupted_is_finished_when_it_is_gone() -> None:
    clinic = clinic_of([patient("a"), patient("x"), patient("y")])
    clinic.hang("a")
    while not clinic.terminations:
        clinic.pass_time(0.1)
    clinic.hold("service", "a")
    clinic.pass_time(60.0)
    assert A1 not in clinic.processes
    clinic.holds.clear()
    clinic.pass_time(5.0)
    assert clinic.healthy() == {"a", "x", "y"}


def test_i6_a_hold_stops_the_start_of_what_was_skipped() -> None:
    clinic = clinic_of([patient("db", enabled=False), patient("a")], Edge("a", "db"))
    clinic.request(Kind.SHUTDOWN)
    clinic.pass_time(10.0)
    clinic.behaviours[Instance("db", "n1")] = Behaviour(cannot_start=True)
    clinic.request(Kind.STARTUP)
    clinic.pass_time(10.0)
    clinic.hold("service", "a")
    clinic.behaviours.clear()
    clinic.request(Kind.STARTUP, "db")
    clinic.pass_time(30.0)
    assert clinic.healthy() == {"db"}
    clinic.holds.clear()
    clinic.pass_time(5.0)
    assert clinic.healthy() == {"db", "a"}


def test_a_person_may_do_to_a_held_service_what_they_like() -> None:
    clinic = clinic_of([patient("a")])
    clinic.hold("stack")
    operation = clinic.request(Kind.RESTART, "a")
    clinic.pass_time(10.0)
    assert clinic.state(operation) is OperationState.SUCCEEDED
