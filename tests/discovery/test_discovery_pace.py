"""From when on an answer is unusually late."""

from __future__ import annotations

import random

import pytest

from citadel_consul.discovery.pace import FIRST_SECONDS, SHORTEST_SECONDS, Pace


def paced(*seconds: float) -> Pace:
    pace = Pace()
    for each in seconds:
        pace.note(each)
    return pace


def test_before_any_answer_patience_is_a_guess() -> None:
    assert Pace().patience_seconds == FIRST_SECONDS


def test_the_estimate_is_that_of_tcp() -> None:
    assert paced(0.8).patience_seconds == pytest.approx(0.8 + 4 * 0.4)
    # RFC 6298, 2.3: RTTVAR = 3/4 × 0.4 + 1/4 × |0.8 − 0.4|, SRTT = 7/8 × 0.8 + 1/8 × 0.4
    assert paced(0.8, 0.4).patience_seconds == pytest.approx(0.75 + 4 * 0.4)


def test_a_fast_service_is_not_expected_to_be_as_regular_as_a_clock() -> None:
    assert paced(*[0.001] * 100).patience_seconds == SHORTEST_SECONDS


def test_patience_follows_a_service_that_gets_slower_within_ten_answers() -> None:
    assert paced(*[0.01] * 100, *[0.5] * 10).patience_seconds > 0.5


def test_of_answers_spread_exponentially_few_are_late() -> None:
    draw = random.Random(3)
    pace, late = Pace(), 0
    for _ in range(5000):
        seconds = draw.expovariate(10)
        late += seconds > pace.patience_seconds
        pace.note(seconds)
    assert 0 < late < 5000 * 0.04
