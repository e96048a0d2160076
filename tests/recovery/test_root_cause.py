"""Of a set of failing services only the cause is recovered; what depends on it waits, and is looked at again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from clinic import Behaviour, Clinic, clinic_of, crashing, patient

from citadel_consul.core.incident import IncidentState
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Condition, Edge, Instance, OnRecovery, Strength
from citadel_consul.core.operation import Kind, OperationState, StepAction

DEPENDENTS = tuple(f"d{number:02d}" for number in range(12))


def database_with_dependents(on_recovery: OnRecovery = OnRecovery.NOTIFY, **policy: Any) -> Clinic:
    """A database with twelve dependents whose health follows it."""
    edges = [Edge(name, "db", on_recovery=on_recovery) for name in DEPENDENTS]
    clinic = clinic_of([patient("db", **policy), *(patient(name) for name in DEPENDENTS)], *edges)
    clinic.following = set(DEPENDENTS)
    return clinic


def restarts(clinic: Clinic) -> dict[str, int]:
    """How often each service was started beyond its first start."""
    return {name: clinic.starts(name) - 1 for name in clinic.specs if clinic.starts(name) != 1}


def test_a_killed_database_is_the_only_thing_that_is_restarted() -> None:
    clinic = database_with_dependents()
    clinic.kill_hard("db")
    clinic.pass_time(60.0)
    assert restarts(clinic) == {"db": 1}
    assert clinic.healthy() == set(clinic.specs)


def test_one_incident_names_all_twelve_dependents_and_they_have_none() -> None:
    clinic = database_with_dependents()
    clinic.kill_hard("db")
    clinic.pass_time(60.0)
    assert set(clinic.incidents) == {"db"}
    assert clinic.incident("db").affected == DEPENDENTS
    assert clinic.told("incident-opened") == [
        f"db fails: db@n1: killed by SIGKILL; affects {', '.join(DEPENDENTS)}",
    ]
    assert clinic.told("incident-closed") == ["db: healthy again after 1 attempt"]


def test_the_dependents_are_told() -> None:
    clinic = database_with_dependents()
    clinic.kill_hard("db")
    clinic.pass_time(60.0)
    assert len(clinic.told("dependency-recovered")) == 12


def test_dependents_whose_edge_asks_for_it_are_restarted_once() -> None:
    clinic = database_with_dependents(OnRecovery.RESTART)
    clinic.kill_hard("db")
    clinic.pass_time(60.0)
    assert restarts(clinic) == {"db": 1, **dict.fromkeys(DEPENDENTS, 1)}
    assert set(clinic.incidents) == {"db"}


def test_dependents_whose_edge_asks_for_it_reload() -> None:
    clinic = database_with_dependents(OnRecovery.RELOAD)
    clinic.kill_hard("db")
    clinic.pass_time(60.0)
    assert restarts(clinic) == {"db": 1}
    assert set(clinic.reloads.values()) == {1}
    assert len(clinic.reloads) == 12
    assert clinic.automatic()[0].state is OperationState.SUCCEEDED


@pytest.mark.parametrize("slow", [0.0, 4.0], ids=["at-once", "after-the-database-is-back"])
def test_dependents_that_die_with_it_are_started_again_once_and_open_no_incident(slow: float) -> None:
    clinic = database_with_dependents()
    clinic.kill_hard("db")
    clinic.pass_time(slow)
    for name in DEPENDENTS:
        instance = Instance(name, "n1")
        clinic._end(instance, Phase.EXITED, detail="exit status 1")
    clinic.pass_time(60.0)
    assert restarts(clinic) == {"db": 1, **dict.fromkeys(DEPENDENTS, 1)}
    assert set(clinic.incidents) == {"db"}
    assert clinic.incident("db").followed == DEPENDENTS
    assert clinic.incident("db").state is IncidentState.CLOSED
    assert clinic.healthy() == set(clinic.specs)


def test_dependents_that_exit_a_moment_before_the_end_of_their_database_is_known_are_not_the_cause() -> None:
    clinic = database_with_dependents()
    for name in DEPENDENTS:
        clinic._end(Instance(name, "n1"), Phase.EXITED, detail="exit status 1")
    clinic.pass_time(0.1)
    clinic.kill_hard("db")
    clinic.pass_time(60.0)
    assert restarts(clinic) == {"db": 1, **dict.fromkeys(DEPENDENTS, 1)}
    assert set(clinic.incidents) == {"db"}


def test_a_dependent_killed_by_a_signal_is_its_own_cause_at_once() -> None:
    clinic = database_with_dependents()
    clinic.kill_hard("d00")
    clinic.lead()
    assert clinic.incident("d00").attempts == 1


@pytest.mark.parametrize("gap", [0.0, 0.05, 0.5, 0.9])
def test_a_dependent_whose_end_is_reported_before_that_of_its_database_has_a_part_in_its_incident(gap: float) -> None:
    clinic = database_with_dependents()
    clinic.kill_hard("d00")
    clinic.lead()
    clinic.pass_time(gap)
    clinic.kill_hard("db")
    clinic.pass_time(0.2)
    db, d00 = clinic.incident("db"), clinic.incident("d00")
    assert d00.part_of == db.id
    assert "d00" in db.affected
    clinic.pass_time(60.0)
    assert clinic.healthy() == set(clinic.specs)
    assert restarts(clinic)["db"] == 1
    assert restarts(clinic).keys() == {"db", "d00"}
    assert all(clinic.incident(name).over for name in ("db", "d00"))


def test_what_died_with_its_database_and_was_reported_first_waits_for_no_attempt_of_its_own() -> None:
    """Its budget is not used up by what its database does to it."""
    clinic = database_with_dependents(delay_seconds=30.0)
    clinic.kill_hard("d00")
    clinic.lead()
    clinic.kill_hard("db")
    clinic.pass_time(20.0)
    assert clinic.healthy() == set(clinic.specs)
    assert clinic.incident("d00").attempts == 1


def test_a_failure_that_was_told_long_ago_is_no_part_of_one_that_comes_later() -> None:
    clinic = database_with_dependents()
    clinic.kill_hard("d00")
    clinic.pass_time(3.0)
    clinic.kill_hard("db")
    clinic.pass_time(0.2)
    assert clinic.incident("d00").part_of is None


def test_two_services_that_need_each_other_in_no_way_have_an_incident_each() -> None:
    clinic = clinic_of([patient("a"), patient("b"), patient("c")])
    clinic.kill_hard("a")
    clinic.lead()
    clinic.kill_hard("b")
    clinic.pass_time(0.2)
    assert clinic.incident("a").part_of is clinic.incident("b").part_of is None


def test_a_hung_database_is_found_below_dependents_that_notice_it_first() -> None:
    edges = [Edge(name, "db") for name in DEPENDENTS]
    quick = [patient(name) for name in DEPENDENTS]
    clinic = clinic_of([patient("db", interval=30.0), *quick], *edges)
    for name in DEPENDENTS:
        clinic.hang(name)
    clinic.pass_time(20.0)  # the database's own check has not come round
    assert restarts(clinic) == {}
    clinic.hang("db")
    clinic.following = set(DEPENDENTS)
    clinic.pass_time(60.0)
    assert restarts(clinic) == {"db": 1}


def test_a_chain_is_recovered_from_its_lowest_failing_link() -> None:
    edges = [Edge("b", "a"), Edge("c", "b"), Edge("d", "c")]
    clinic = clinic_of([patient(name) for name in "abcd"], *edges)
    clinic.following = {"c", "d"}
    clinic.kill_hard("b")
    clinic.pass_time(60.0)
    assert restarts(clinic) == {"b": 1}
    assert clinic.incident("b").affected == ("c", "d")


def test_a_chain_that_died_whole_is_started_in_order_each_link_once() -> None:
    edges = [Edge("b", "a"), Edge("c", "b")]
    clinic = clinic_of([patient(name) for name in "abc"], *edges)
    clinic.kill_hard("a", "b", "c")
    clinic.pass_time(90.0)
    assert restarts(clinic) == {"a": 1, "b": 1, "c": 1}
    assert set(clinic.incidents) == {"a"}
    assert clinic.incident("a").followed == ("b", "c")


def test_a_dependent_that_does_not_come_back_gets_an_incident_of_its_own() -> None:
    clinic = database_with_dependents()
    stubborn = Instance("d03", "n1")
    clinic.kill_hard("db")
    clinic.pass_time(1.0)
    clinic.following -= {"d03"}
    clinic.hang("d03")
    clinic.pass_time(60.0)
    assert restarts(clinic) == {"db": 1, "d03": 1}
    closed_at = clinic.incident("db").closed_at
    assert closed_at is not None
    assert clinic.incident("d03").opened_at >= closed_at
    assert stubborn in clinic.processes


def test_a_dependent_that_fails_anew_after_it_was_started_again_gets_an_incident_of_its_own() -> None:
    clinic = database_with_dependents()
    clinic.behaviours[Instance("d05", "n1")] = crashing()
    clinic.kill_hard("db", "d05")
    clinic.pass_time(300.0)
    assert clinic.incident("d05").state is IncidentState.GAVE_UP
    assert clinic.starts("d05") == 1 + 1 + 3
    assert clinic.incident("db").state is IncidentState.CLOSED
    assert restarts(clinic) == {"db": 1, "d05": 4}


def test_dependents_of_a_given_up_database_wait_and_are_not_restarted() -> None:
    clinic = database_with_dependents(attempts=2)
    clinic.behaviours[Instance("db", "n1")] = crashing()
    clinic.kill_hard("db")
    clinic.pass_time(300.0)
    assert restarts(clinic) == {"db": 2}
    assert set(clinic.incidents) == {"db"}
    clinic.behaviours[Instance("db", "n1")] = Behaviour()
    clinic.request(Kind.RECOVER, "db")
    clinic.pass_time(60.0)
    assert clinic.healthy() == set(clinic.specs)
    assert restarts(clinic) == {"db": 3}


def test_an_edge_that_enough_other_instances_meet_explains_nothing() -> None:
    clinic = clinic_of([patient("db", "n1", "n2"), patient("a")], Edge("a", "db", min_instances=1))
    clinic.hang("a")
    clinic._end(Instance("db", "n1"), Phase.EXITED, detail="killed by SIGKILL", exit_signal=9)
    clinic.pass_time(30.0)
    assert clinic.starts("a") == 2
    assert clinic.incident("db").affected == ()


@pytest.mark.parametrize("strength", [Strength.SOFT, Strength.MILESTONE])
def test_only_hard_edges_explain_a_failure(strength: Strength) -> None:
    clinic = clinic_of([patient("db"), patient("a")], Edge("a", "db", strength=strength))
    clinic.hang("a", "db")
    clinic.pass_time(30.0)
    assert set(clinic.incidents) == {"a", "db"}


def test_a_hung_dependency_explains_what_asked_only_that_it_was_started() -> None:
    clinic = clinic_of([patient("db"), patient("a")], Edge("a", "db", condition=Condition.STARTED))
    clinic.hang("a", "db")
    clinic.following = {"a"}
    clinic.pass_time(60.0)
    assert restarts(clinic) == {"db": 1}


def test_what_a_persons_restart_takes_down_above_it_is_not_recovered() -> None:
    clinic = database_with_dependents()
    clinic.behaviours[Instance("db", "n1")] = Behaviour(ready_after=8.0)
    clinic.request(Kind.RESTART, "db")
    clinic.pass_time(60.0)
    assert restarts(clinic) == {"db": 1}
    assert clinic.incidents == {}


def test_two_causes_are_recovered_side_by_side() -> None:
    edges = [Edge("a", "db1"), Edge("a", "db2")]
    clinic = clinic_of([patient(n) for n in ("db1", "db2", "a", "x", "y")], *edges)
    clinic.kill_hard("db1", "db2")
    clinic.lead()
    clinic.tick()
    assert [op.targets for op in clinic.automatic()] == [("db1@n1",), ("db2@n1",)]
    assert {Instance("db1", "n1"), Instance("db2", "n1")} <= set(clinic.processes)


def test_causes_with_a_dependent_to_restart_in_common_are_recovered_together() -> None:
    edges = [Edge("a", db, on_recovery=OnRecovery.RESTART) for db in ("db1", "db2")]
    clinic = clinic_of([patient(n) for n in ("db1", "db2", "a", "x", "y")], *edges)
    clinic.kill_hard("db1", "db2")
    clinic.pass_time(30.0)
    assert [op.targets for op in clinic.automatic()] == [("db1@n1", "db2@n1")]
    assert restarts(clinic) == {"db1": 1, "db2": 1, "a": 1}
    assert {i.operations for i in clinic.incidents.values()} == {(clinic.automatic()[0].id,)}


def test_a_dependent_is_not_taken_down_for_its_restart_while_it_could_not_be_started() -> None:
    edges = [Edge("a", db, on_recovery=OnRecovery.RESTART) for db in ("db1", "db2")]
    clinic = clinic_of([patient(n) for n in ("db1", "db2", "a", "x", "y")], *edges)
    clinic.kill_hard("db1")
    clinic.pass_time(0.5)
    clinic.kill_hard("db2")
    clinic.pass_time(60.0)
    assert restarts(clinic) == {"db1": 1, "db2": 1, "a": 1}
    assert clinic.healthy() == set(clinic.specs)
    first = clinic.automatic()[0]
    skipped = next(step for step in first.steps if step.service == "a")
    assert (skipped.action, skipped.detail) == (StepAction.STOP, "needs db2, which is not healthy")


def test_a_cause_on_a_held_node_is_waited_for() -> None:
    clinic = database_with_dependents()
    clinic.specs["db"] = replace(clinic.specs["db"])
    clinic.hold("service", "db")
    clinic.kill_hard("db")
    clinic.pass_time(60.0)
    assert restarts(clinic) == {}
    assert clinic.incidents == {}


def test_an_incident_does_not_stay_open_for_a_dependent_that_waits_for_something_else_too() -> None:
    names = ("db", "other", "a", "x", "y", "z")
    clinic = clinic_of([patient(n, attempts=1) for n in names], Edge("a", "db"), Edge("a", "other"))
    clinic.behaviours[Instance("other", "n1")] = crashing()
    clinic.kill_hard("other")
    clinic.pass_time(30.0)
    assert clinic.incident("other").state is IncidentState.GAVE_UP
    clinic.kill_hard("db", "a")
    clinic.pass_time(60.0)
    assert clinic.incident("db").state is IncidentState.CLOSED
    assert Instance("a", "n1") not in clinic.processes
    clinic.behaviours.clear()
    clinic.request(Kind.RECOVER, "other")
    clinic.pass_time(30.0)
    assert clinic.starts("a") == 2
    assert set(clinic.incidents) == {"db", "other"}
