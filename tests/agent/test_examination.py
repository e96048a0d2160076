"""What a node agent concludes from its own probes, on two clocks that the test drives."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_consul.agent.examination import Diagnosis, Examination
from citadel_consul.agent.readiness import Finding

ILL, WARNING = Finding("HTTP 503"), Finding("HTTP 429", critical=False)
INTERVAL = 10.0
WALL = 1_000_000.0


def diagnoses(*probes: tuple[float, Finding | None]) -> list[Diagnosis]:
    """What each of the probes leads to; they begin at these seconds."""
    examination = Examination()
    return [examination.take(finding, INTERVAL, at=WALL + at, clock=at) for at, finding in probes]


def test_a_single_failed_probe_confirms_nothing() -> None:
    (diagnosis,) = diagnoses((0.0, ILL))
    assert diagnosis == Diagnosis(lapsed_at=WALL)


def test_what_fails_for_longer_than_its_interval_is_confirmed_since_its_first_failure() -> None:
    *before, last = diagnoses((0.0, ILL), (4.0, ILL), (8.0, ILL), (10.1, ILL))
    assert all(diagnosis.failing_since is None for diagnosis in before)
    assert last == Diagnosis(failing_since=WALL, failure="HTTP 503")


def test_exactly_one_interval_is_not_longer_than_one() -> None:
    assert diagnoses((0.0, ILL), (INTERVAL, ILL))[-1].failing_since is None


def examined(examination: Examination, at: float) -> float | None:
    return examination.take(ILL, INTERVAL, at=WALL + at, clock=at).failing_since


def test_what_a_starved_witness_found_does_not_count() -> None:
    examination = Examination()
    assert examined(examination, 0.0) is None
    examination.starved(9.0)
    assert examined(examination, 11.0) is None
    examination.starved(18.0)
    assert examined(examination, 28.0) is None
    assert examined(examination, 28.1) == WALL, "it fails since it was found failing first"


def test_being_starved_is_no_new_lapse() -> None:
    examination = Examination()
    found = [examination.take(ILL, INTERVAL, at=WALL, clock=0.0)]
    examination.starved(5.0)
    found.append(examination.take(ILL, INTERVAL, at=WALL + 6.0, clock=6.0))
    assert [diagnosis.lapsed_at for diagnosis in found] == [WALL, None]


def test_what_is_confirmed_stays_so_whoever_is_starved() -> None:
    examination = Examination()
    examined(examination, 0.0)
    assert examined(examination, 10.1) == WALL
    examination.starved(11.0)
    assert examined(examination, 12.0) == WALL


def test_what_fails_for_ten_times_as_long_is_confirmed_although_the_witness_is_always_starved() -> None:
    examination = Examination()
    for second in range(0, 101, 5):
        assert examined(examination, float(second)) is None
        examination.starved(second + 1.0)
    assert examined(examination, 101.0) == WALL


def test_a_starved_witness_may_still_say_that_it_serves() -> None:
    examination = Examination()
    examined(examination, 0.0)
    examination.starved(5.0)
    assert examination.take(None, INTERVAL, at=WALL + 6.0, clock=6.0) == Diagnosis(contradicted_since=WALL + 6.0)


def test_one_probe_that_passes_clears_it_and_says_that_consul_is_wrong() -> None:
    *_, passed, again = diagnoses((0.0, ILL), (10.1, ILL), (11.0, None), (12.0, ILL))
    assert passed == Diagnosis(contradicted_since=WALL + 11.0)
    assert again == Diagnosis(lapsed_at=WALL + 12.0)


def test_a_contradiction_lasts_from_its_first_pass() -> None:
    assert [d.contradicted_since for d in diagnoses((1.0, None), (2.0, None), (3.0, None))] == [WALL + 1.0] * 3


def test_a_warning_is_confirmed_as_such_and_is_no_lapse() -> None:
    first, last = diagnoses((0.0, WARNING), (10.1, WARNING))
    assert first == Diagnosis()
    assert last == Diagnosis(degraded_since=WALL, failure="HTTP 429")


def test_a_warning_that_becomes_worse_has_to_last_anew() -> None:
    *_, critical, confirmed = diagnoses((0.0, WARNING), (11.0, WARNING), (12.0, ILL), (22.1, ILL))
    assert critical == Diagnosis(lapsed_at=WALL + 12.0)
    assert confirmed.failing_since == WALL + 12.0


def test_a_clock_that_is_set_confirms_nothing() -> None:
    examination = Examination()
    examination.take(ILL, INTERVAL, at=WALL, clock=0.0)
    assert examination.take(ILL, INTERVAL, at=WALL + 3_600.0, clock=1.0).failing_since is None


@pytest.mark.parametrize("begin", [0.0, 0.1, 3.0, 9.9])
def test_a_service_that_is_slow_for_one_interval_is_let_off(begin: float) -> None:
    """It is slow from 0 to one interval; probes that begin then fail, whenever their answer comes."""
    moments = [begin + number * 0.7 for number in range(60)]
    found = diagnoses(*((at, ILL if at < INTERVAL else None) for at in moments))
    assert all(diagnosis.failing_since is None for diagnosis in found)


@given(st.lists(st.tuples(st.floats(0.01, 5.0), st.sampled_from([None, ILL, WARNING])), min_size=1, max_size=40))
def test_a_confirmed_failure_has_lasted_and_was_never_interrupted(steps: list[tuple[float, Finding | None]]) -> None:
    clock, probes = 0.0, []
    for pause, finding in steps:
        clock += pause
        probes.append((clock, finding))
    for (at, finding), diagnosis in zip(probes, diagnoses(*probes), strict=True):
        claims = (diagnosis.failing_since, diagnosis.degraded_since, diagnosis.contradicted_since)
        assert sum(claim is not None for claim in claims) <= 1
        since = diagnosis.failing_since
        if since is not None:
            meanwhile = [found for begin, found in probes if since - WALL <= begin <= at]
            assert set(meanwhile) == {finding} == {ILL}
            assert at - (since - WALL) > INTERVAL - 1e-6
    lapses = [d.lapsed_at for d in diagnoses(*probes) if d.lapsed_at is not None]
    assert all(earlier < later for earlier, later in pairwise(lapses))
