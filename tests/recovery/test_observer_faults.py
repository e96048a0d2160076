"""Whose fault is it: what only Consul says restarts nothing, and is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from clinic import CONFIRM_SECONDS, Clinic, clinic_of, patient

from citadel_consul.core.answers.problems import stack_problems
from citadel_consul.core.healing.observers import observer_faults
from citadel_consul.core.incident import IncidentState
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Edge, Instance
from citadel_consul.core.snapshot import CheckStatus

FIFTY = tuple(f"s{number:02d}" for number in range(50))


def restarts(clinic: Clinic) -> int:
    return sum(clinic.starts(name) - 1 for name in clinic.specs)


def claim(clinic: Clinic, status: CheckStatus, *services: str) -> None:
    """Have Consul say ``status`` of ``services``, which serve."""
    for name in services:
        clinic.claims.update(dict.fromkeys(clinic.specs[name].instances, status))


@pytest.mark.parametrize("answer", [True, False], ids=["agents-contradict", "agents-silent"])
def test_a_restarted_consul_agent_that_calls_fifty_services_critical_restarts_none(answer: bool) -> None:
    clinic = clinic_of([patient(name) for name in FIFTY])
    clinic.agents_answer = answer
    claim(clinic, CheckStatus.CRITICAL, *FIFTY)
    clinic.pass_time(30.0)
    clinic.claims.clear()
    clinic.pass_time(30.0)
    assert restarts(clinic) == 0
    assert clinic.incidents == {}


def test_what_node_agents_contradict_is_said() -> None:
    clinic = clinic_of([patient("a")])
    claim(clinic, CheckStatus.CRITICAL, "a")
    clinic.pass_time(1.0)
    (fault,) = observer_faults(clinic.snapshot())
    assert (fault.place, fault.certain) == ("a@n1", True)
    assert fault.message == "Consul calls it critical, and it passes the same checks when its node agent runs them"


def test_what_nobody_has_confirmed_yet_is_said() -> None:
    clinic = clinic_of([patient("a")])
    clinic.agents_answer = False
    claim(clinic, CheckStatus.CRITICAL, "a")
    clinic.pass_time(1.0)
    (fault,) = observer_faults(clinic.snapshot())
    assert (fault.place, fault.certain) == ("a@n1", False)


@pytest.mark.parametrize("refuted", [True, False])
def test_what_is_said_of_many_services_of_a_node_is_one_problem_of_the_status(refuted: bool) -> None:
    clinic = clinic_of([patient(name) for name in FIFTY])
    clinic.agents_answer = refuted
    claim(clinic, CheckStatus.CRITICAL, *FIFTY)
    clinic.pass_time(1.0)
    (problem,) = stack_problems(clinic.snapshot(), led=True)
    assert (problem.kind, problem.place) == ("observer", "n1")
    doubt = "and they pass the same checks when" if refuted else "which their node agent has not confirmed"
    assert problem.message.startswith(f"Consul calls 50 services critical, {doubt}")
    assert problem.message.endswith(": s00, s01, s02, s03, s04 and 45 more")


def test_what_consul_holds_against_its_own_agent_is_said() -> None:
    snapshot = replace(clinic_of([patient("a")]).snapshot(), node_faults={"n1": "Serf Health Status critical"})
    (fault,) = observer_faults(snapshot)
    assert (fault.place, fault.certain) == ("n1", True)
    assert "Serf Health Status critical" in fault.message


def test_a_node_that_consul_lost_restarts_nothing_when_it_is_back() -> None:
    clinic = clinic_of([patient(name) for name in "abc"])
    clinic.silent = {"n1"}
    claim(clinic, CheckStatus.CRITICAL, *"abc")
    clinic.pass_time(20.0)
    clinic.silent = set()
    clinic.claims.clear()
    clinic.pass_time(30.0)
    assert restarts(clinic) == 0


def test_a_service_that_fails_for_less_than_its_agents_patience_is_left_alone() -> None:
    clinic = clinic_of([patient(name) for name in "abc"])
    clinic.hang(*"abc")
    clinic.pass_time(CONFIRM_SECONDS - 0.1)
    clinic.cure(*"abc")
    clinic.pass_time(30.0)
    assert restarts(clinic) == 0
    assert clinic.incidents == {}


def test_a_hung_service_is_restarted_once_its_node_agent_confirms_it() -> None:
    clinic = clinic_of([patient("a"), patient("b")])
    clinic.hang("a")
    clinic.pass_time(CONFIRM_SECONDS - 0.1)
    assert clinic.starts("a") == 1
    clinic.pass_time(10.0)
    assert clinic.starts("a") == 2
    assert (clinic.incident("a").cause, clinic.incident("a").detail) == ("health_check_failure", "a@n1: no answer")
    assert clinic.automatic()[0].options.reason == "health_check_failure"


def test_a_service_that_hangs_after_each_restart_is_given_up() -> None:
    clinic = clinic_of([patient("a", attempts=3), patient("b")])
    clinic.hang("a", for_good=True)
    clinic.pass_time(600.0)
    assert clinic.starts("a") == 1 + 3
    assert clinic.incident("a").state is IncidentState.GAVE_UP


def test_a_degraded_service_is_not_restarted() -> None:
    clinic = clinic_of([patient("a"), patient("b")])
    clinic.warnings = {Instance("a", "n1")}
    clinic.pass_time(60.0)
    assert restarts(clinic) == 0
    assert clinic.incidents == {}


def test_a_degraded_service_is_restarted_if_its_policy_says_so() -> None:
    clinic = clinic_of([patient("a", restart_degraded=True), patient("b")])
    clinic.warnings = {Instance("a", "n1")}
    clinic.pass_time(1.0)
    clinic.warnings = set()
    clinic.pass_time(10.0)
    assert clinic.starts("a") == 2
    assert clinic.incident("a").cause == "degraded"


def test_a_start_that_takes_too_long_is_recovered_only_if_its_agent_says_that_it_does_not_answer() -> None:
    clinic = clinic_of([patient("a", attempts=1), patient("b")])
    instance = Instance("a", "n1")
    seen = clinic.observed[instance]
    late = replace(seen, phase=Phase.STARTING, started_at=clinic.now - 11.0, since=clinic.now - 11.0)
    clinic.observed[instance] = late
    clinic.behaviours[instance] = replace(clinic.behaviour(instance), ready_after=None)
    clinic.lead()
    assert clinic.incidents == {}
    clinic.observed[instance] = replace(late, failing_since=clinic.now - 11.0, failure="HTTP 503")
    clinic.lead()
    assert (clinic.incident("a").cause, clinic.incident("a").detail) == ("start_timeout", "a@n1: HTTP 503")


def test_a_service_in_maintenance_is_nobodys_business() -> None:
    clinic = clinic_of([patient("a"), patient("b")], Edge("b", "a"))
    claim(clinic, CheckStatus.MAINTENANCE, "a")
    clinic.pass_time(60.0)
    assert restarts(clinic) == 0
    assert clinic.incidents == {}
