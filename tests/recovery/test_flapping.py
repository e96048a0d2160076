"""A service that fails and comes back by itself, again and again, is quarantined, and released when it is quiet."""

from __future__ import annotations

import pytest
from clinic import CONFIRM_SECONDS, Clinic, clinic_of, patient

from citadel_consul.core.healing.flapping import is_flapping, penalty, quiet_at
from citadel_consul.core.incident import IncidentState
from citadel_consul.core.model import Edge, Instance
from citadel_consul.core.operation import Kind

INTERVAL = 1.0
LIMIT, HALF_LIFE = 5, 300.0


def flap(clinic: Clinic, times: int, *services: str, period: float = 2 * INTERVAL) -> None:
    """Let ``services`` fail for an interval in each period, so many times."""
    for _ in range(times):
        clinic.hang(*services)
        clinic.pass_time(INTERVAL)
        clinic.cure(*services)
        clinic.pass_time(period - INTERVAL)


def test_a_service_that_flaps_with_its_interval_is_quarantined_within_the_configured_count() -> None:
    assert INTERVAL < CONFIRM_SECONDS
    clinic = clinic_of([patient("a"), patient("b")])
    flap(clinic, LIMIT - 1, "a")
    assert clinic.incidents == {}
    flap(clinic, 1, "a")
    incident = clinic.incident("a")
    assert (incident.state, incident.cause) == (IncidentState.QUARANTINED, "flapping")
    assert clinic.starts("a") == 1


def test_a_quarantine_is_said_once_however_long_it_flaps_on() -> None:
    clinic = clinic_of([patient("a"), patient("b")])
    flap(clinic, 50, "a")
    assert len(clinic.told("quarantined")) == 1
    assert clinic.told("incident-opened") == []


def test_nothing_is_done_about_what_is_quarantined_even_if_it_hangs_or_dies() -> None:
    clinic = clinic_of([patient("a"), patient("b")])
    flap(clinic, LIMIT, "a")
    clinic.hang("a")
    clinic.pass_time(60.0)
    clinic.kill_hard("a")
    clinic.pass_time(60.0)
    assert clinic.starts("a") == 1
    assert clinic.incident("a").state is IncidentState.QUARANTINED


def test_it_is_released_when_its_penalty_has_decayed_and_the_incident_ends() -> None:
    clinic = clinic_of([patient("a"), patient("b")])
    flap(clinic, LIMIT, "a")
    clinic.pass_time(HALF_LIFE)
    assert clinic.incident("a").state is IncidentState.QUARANTINED
    clinic.pass_time(HALF_LIFE)
    assert clinic.told("released") == ["a has been quiet: it is recovered again"]
    assert clinic.incident("a").state is IncidentState.CLOSED
    assert len(clinic.told("incident-closed")) == 1


def test_what_died_in_quarantine_is_recovered_after_its_release() -> None:
    clinic = clinic_of([patient("a"), patient("b")])
    flap(clinic, LIMIT, "a")
    clinic.kill_hard("a")
    clinic.pass_time(3 * HALF_LIFE)
    assert clinic.starts("a") == 2
    assert clinic.healthy() == {"a", "b"}


def test_the_more_it_flaps_the_longer_it_is_quarantined() -> None:
    few, many = clinic_of([patient("a"), patient("b")]), clinic_of([patient("a"), patient("b")])
    flap(few, LIMIT, "a")
    flap(many, 4 * LIMIT, "a")
    few.pass_time(10 * HALF_LIFE)
    many.pass_time(10 * HALF_LIFE)
    durations = [
        (closed or 0.0) - incident.opened_at
        for incident in (few.incident("a"), many.incident("a"))
        for closed in [incident.closed_at]
    ]
    assert durations[1] > durations[0] + HALF_LIFE


def test_rare_lapses_are_no_flapping() -> None:
    clinic = clinic_of([patient("a"), patient("b")])
    flap(clinic, 20, "a", period=HALF_LIFE)
    assert clinic.incidents == {}


def test_a_person_who_repairs_it_ends_the_quarantine() -> None:
    clinic = clinic_of([patient("a"), patient("b")])
    flap(clinic, LIMIT, "a")
    clinic.request(Kind.RESTART, "a")
    clinic.pass_time(20.0)
    assert clinic.incident("a").state is IncidentState.CLOSED


def test_restarts_within_the_budget_are_no_flapping() -> None:
    clinic = clinic_of([patient("a", attempts=8), patient("b")])
    clinic.hang("a", for_good=True)
    clinic.pass_time(1_500.0)
    assert clinic.told("quarantined") == []
    assert clinic.incident("a").state is IncidentState.GAVE_UP
    assert clinic.starts("a") == 1 + 8


def test_what_goes_up_and_down_with_its_dependency_is_not_quarantined_itself() -> None:
    clinic = clinic_of([patient("db"), patient("a"), patient("x")], Edge("a", "db"))
    clinic.following = {"a"}
    flap(clinic, LIMIT + 3, "db")
    assert clinic.incident("db").state is IncidentState.QUARANTINED
    assert clinic.incident("db").affected == ("a",)
    assert "a" not in clinic.incidents


def test_a_held_service_is_not_quarantined() -> None:
    clinic = clinic_of([patient("a"), patient("b")])
    clinic.hold("service", "a")
    flap(clinic, 3 * LIMIT, "a")
    assert clinic.incidents == {}


def test_the_lapses_of_a_services_instances_add_up() -> None:
    clinic = clinic_of([patient("a", "n1", "n2")])
    for number in range(LIMIT):
        instance = Instance("a", "n1" if number % 2 else "n2")
        clinic.ill[instance] = clinic.now
        clinic.pass_time(0.5)
        clinic.ill.clear()
        clinic.pass_time(0.5)
    assert clinic.incident("a").state is IncidentState.QUARANTINED


@pytest.mark.parametrize(
    ("ages", "expected"),
    [((), 0.0), ((0.0,), 1.0), ((300.0,), 0.5), ((600.0,), 0.25), ((0.0, 300.0, 600.0), 1.75), ((-5.0,), 1.0)],
)
def test_a_penalty_halves_with_each_half_life(ages: tuple[float, ...], expected: float) -> None:
    assert penalty([1_000.0 - age for age in ages], 1_000.0, HALF_LIFE) == pytest.approx(expected)


@pytest.mark.parametrize(("period", "after"), [(1.0, 5), (20.0, 5), (60.0, 6), (200.0, None)])
def test_how_many_lapses_of_a_period_count_as_flapping(period: float, after: int | None) -> None:
    lapses = [period * number for number in range(100)]
    counts = (n for n in range(1, 100) if is_flapping(lapses[:n], lapses[n - 1], LIMIT, HALF_LIFE))
    assert next(counts, None) == after


def test_the_moment_of_release_is_where_the_penalty_has_decayed_to_the_threshold() -> None:
    lapses = [0.0, 10.0, 20.0, 30.0, 40.0]
    at = quiet_at(lapses, 40.0, LIMIT, HALF_LIFE)
    assert penalty(lapses, at, HALF_LIFE) == pytest.approx(2.0)
    assert quiet_at(lapses, at + 1.0, LIMIT, HALF_LIFE) == at + 1.0
