"""When most of a stack fails at once, nothing is recovered automatically, and that is said once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from clinic import RECOVERING, Clinic, clinic_of, patient

from citadel_consul.core.answers.problems import stack_problems
from citadel_consul.core.incident import STACK, IncidentState
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Edge, Instance
from citadel_consul.core.operation import Kind
from citadel_consul.core.snapshot import CheckStatus

TEN = tuple(f"s{number}" for number in range(10))
SIX = TEN[:6]


def ten() -> Clinic:
    return clinic_of([patient(name) for name in TEN])


def restarts(clinic: Clinic) -> dict[str, int]:
    return {name: clinic.starts(name) - 1 for name in clinic.specs if clinic.starts(name) != 1}


def test_six_of_ten_that_die_at_once_freeze_recovery() -> None:
    clinic = ten()
    clinic.kill_hard(*SIX)
    clinic.pass_time(300.0)
    assert restarts(clinic) == {}
    assert clinic.incident(STACK).state is IncidentState.OPEN
    assert clinic.incident(STACK).affected == SIX


def test_six_of_ten_that_hang_at_once_freeze_recovery() -> None:
    clinic = ten()
    clinic.hang(*SIX)
    clinic.pass_time(300.0)
    assert restarts(clinic) == {}
    assert set(clinic.incidents) == {STACK}


def test_it_is_said_once() -> None:
    clinic = ten()
    clinic.kill_hard(*SIX)
    clinic.pass_time(300.0)
    assert len(clinic.told("recovery-frozen")) == 1
    assert clinic.told("incident-opened") == []
    assert set(clinic.incidents) == {STACK}


def test_status_says_why_and_how_to_go_on() -> None:
    clinic = ten()
    clinic.kill_hard(*SIX)
    clinic.pass_time(1.0)
    (problem,) = [p for p in stack_problems(clinic.snapshot(), led=True) if p.kind == "recovery"]
    assert "6 of 10 services failed within 60 s (s0, s1, s2, s3, s4, s5)" in problem.message
    assert "citadel recover all" in problem.message


def test_six_of_ten_that_die_within_a_few_reports_freeze_recovery() -> None:
    clinic = ten()
    for victims in (SIX[:3], SIX[3:5], SIX[5:]):
        clinic.kill_hard(*victims)
        clinic.pass_time(0.1)
    clinic.pass_time(30.0)
    assert restarts(clinic) == {}
    assert clinic.incident(STACK).affected == SIX


def test_what_was_recovered_a_moment_ago_counts_for_the_mass() -> None:
    clinic = ten()
    for name in SIX:
        clinic.kill_hard(name)
        clinic.pass_time(1.0)
    assert restarts(clinic) == dict.fromkeys(SIX[:5], 1)
    assert clinic.incident(STACK).affected == SIX
    clinic.pass_time(65.0)
    assert clinic.healthy() == set(TEN)
    assert len(clinic.told("recovery-frozen")) == len(clinic.told("recovery-resumed")) == 1


def test_one_or_two_that_fail_never_wait_for_others() -> None:
    clinic = ten()
    clinic.kill_hard("s0", "s1")
    clinic.lead()
    assert {op.targets for op in clinic.automatic()} == {("s0@n1",), ("s1@n1",)}


def test_half_of_a_stack_is_not_most_of_it() -> None:
    clinic = ten()
    clinic.kill_hard(*TEN[:5])
    clinic.pass_time(10.0)
    assert restarts(clinic) == dict.fromkeys(TEN[:5], 1)


def test_two_services_are_not_a_mass_however_small_the_stack() -> None:
    clinic = clinic_of([patient("a"), patient("b")])
    clinic.kill_hard("a", "b")
    clinic.pass_time(10.0)
    assert restarts(clinic) == {"a": 1, "b": 1}


def test_one_cause_with_many_dependents_is_no_mass_failure() -> None:
    clinic = clinic_of([patient("db"), *(patient(name) for name in TEN)], *(Edge(name, "db") for name in TEN))
    clinic.kill_hard("db", *TEN)
    clinic.pass_time(60.0)
    assert STACK not in clinic.incidents
    assert clinic.healthy() == set(clinic.specs)


def test_failures_that_are_spread_over_time_are_no_mass_failure() -> None:
    clinic = clinic_of([patient(name, enabled=False) for name in TEN])
    for name in TEN:
        clinic.kill_hard(name)
        clinic.pass_time(61.0)
    assert STACK not in clinic.incidents
    assert len(clinic.incidents) == 10


def test_what_ended_while_no_agent_looked_is_started_again_however_much_it_is() -> None:
    clinic = ten()
    for name in TEN:
        clinic._end(Instance(name, "n1"), Phase.EXITED, detail="the machine went down", unwatched=True)
    clinic.pass_time(10.0)
    assert restarts(clinic) == dict.fromkeys(TEN, 1)


def test_recovery_goes_on_when_few_enough_fail() -> None:
    clinic = ten()
    clinic.hang(*SIX)
    clinic.pass_time(30.0)
    clinic.cure(*SIX[:3])
    clinic.pass_time(30.0)
    assert clinic.incident(STACK).state is IncidentState.OPEN
    clinic.cure(SIX[3])
    clinic.pass_time(60.0)
    assert clinic.incident(STACK).outcome == "2 of 10 services fail now"
    assert clinic.told("recovery-resumed") == ["automatic recovery goes on: 2 of 10 services fail now"]
    assert restarts(clinic) == dict.fromkeys(SIX[4:], 1)


def test_a_hold_on_what_fails_does_not_take_the_brake_off() -> None:
    clinic = ten()
    clinic.kill_hard(*SIX)
    clinic.pass_time(30.0)
    clinic.hold("stack", until=clinic.now + 60.0)
    clinic.pass_time(120.0)
    assert clinic.incident(STACK).state is IncidentState.OPEN
    assert restarts(clinic) == {}


def test_the_brake_stays_on_while_nobody_sees_what_had_failed() -> None:
    clinic = ten()
    clinic.kill_hard(*SIX)
    clinic.pass_time(30.0)
    clinic.silent.update(node for spec in clinic.specs.values() for node in spec.nodes)
    clinic.pass_time(60.0)
    clinic.silent.clear()
    clinic.pass_time(60.0)
    assert clinic.incident(STACK).state is IncidentState.OPEN
    assert restarts(clinic) == {}


def test_a_person_who_recovers_everything_takes_the_brake_off() -> None:
    clinic = ten()
    clinic.kill_hard(*SIX)
    clinic.pass_time(30.0)
    clinic.request(Kind.RECOVER)
    clinic.pass_time(30.0)
    assert clinic.healthy() == set(TEN)
    assert clinic.incident(STACK).state is IncidentState.CLOSED


def test_after_a_person_went_on_what_still_fails_is_recovered_within_its_budget() -> None:
    clinic = ten()
    clinic.hang(*SIX, for_good=True)
    clinic.pass_time(30.0)
    clinic.request(Kind.RECOVER)
    clinic.pass_time(600.0)
    assert clinic.incident(STACK).outcome == "op recovered everything"
    assert len(clinic.told("recovery-frozen")) == 1
    assert {clinic.incident(name).state for name in SIX} == {IncidentState.GAVE_UP}


def test_a_new_mass_failure_puts_the_brake_on_again() -> None:
    clinic = ten()
    clinic.kill_hard(*SIX)
    clinic.pass_time(30.0)
    clinic.request(Kind.RECOVER)
    clinic.pass_time(100.0)
    clinic.kill_hard(*TEN)
    clinic.pass_time(10.0)
    assert len(clinic.told("recovery-frozen")) == 2


def test_recovery_holds_back_while_it_is_not_known_how_much_fails() -> None:
    clinic = ten()
    clinic.agents_answer = False
    clinic.claims = {Instance(name, "n1"): CheckStatus.CRITICAL for name in SIX}
    clinic.kill_hard("s9")
    clinic.pass_time(5.0)
    assert restarts(clinic) == {}
    assert clinic.incidents == {}
    clinic.agents_answer = True
    clinic.pass_time(5.0)
    assert restarts(clinic) == {"s9": 1}
    assert STACK not in clinic.incidents


def test_incidents_that_opened_just_before_the_brake_came_on_are_part_of_that_of_the_stack() -> None:
    clinic = clinic_of([patient(name, enabled=False) for name in TEN])
    for name in SIX:
        clinic.kill_hard(name)
        clinic.lead()
    stack = clinic.incident(STACK)
    assert set(clinic.incidents) == {STACK, *SIX[:5]}
    assert {clinic.incident(name).part_of for name in SIX[:5]} == {stack.id}


@pytest.mark.parametrize(
    ("share", "count", "frozen"), [(0.6, 6, False), (0.6, 7, True), (0.2, 3, True), (1.0, 10, False)]
)
def test_the_share_that_is_too_much_is_a_setting(share: float, count: int, frozen: bool) -> None:
    clinic = clinic_of([patient(name) for name in TEN], defaults=replace(RECOVERING, brake_share=share))
    clinic.kill_hard(*TEN[:count])
    clinic.pass_time(10.0)
    assert (STACK in clinic.incidents) is frozen
    assert restarts(clinic) == ({} if frozen else dict.fromkeys(TEN[:count], 1))


def test_the_brake_comes_off_at_half_the_share_that_puts_it_on() -> None:
    clinic = clinic_of([patient(name) for name in TEN], defaults=replace(RECOVERING, brake_share=0.8))
    clinic.hang(*TEN[:9])
    clinic.pass_time(70.0)
    clinic.cure(*TEN[:4])
    clinic.pass_time(10.0)
    assert clinic.incident(STACK).state is IncidentState.OPEN
    clinic.cure(TEN[4])
    clinic.pass_time(1.0)
    assert clinic.incident(STACK).outcome == "4 of 10 services fail now"


def test_how_many_are_too_few_to_be_a_mass_is_a_setting() -> None:
    clinic = clinic_of([patient(name) for name in TEN], defaults=replace(RECOVERING, brake_services=8))
    clinic.kill_hard(*TEN[:7])
    clinic.pass_time(10.0)
    assert STACK not in clinic.incidents
    clinic.kill_hard(*TEN)
    clinic.pass_time(10.0)
    assert STACK in clinic.incidents


def test_how_close_together_failures_have_to_be_is_a_setting() -> None:
    limits = replace(RECOVERING, brake_window_seconds=10.0)
    clinic = clinic_of([patient(name, enabled=False) for name in TEN], defaults=limits)
    for name in SIX:
        clinic.kill_hard(name)
        clinic.pass_time(3.0)
    assert STACK not in clinic.incidents
    clinic.kill_hard(*TEN[6:9])
    clinic.pass_time(3.0)
    assert clinic.incident(STACK).detail == "6 of 10 services failed within 10 s"


def test_held_services_do_not_count() -> None:
    clinic = ten()
    for name in SIX:
        clinic.hold("service", name)
    clinic.kill_hard(*SIX, "s8")
    clinic.pass_time(10.0)
    assert restarts(clinic) == {"s8": 1}
