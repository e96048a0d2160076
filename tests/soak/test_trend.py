"""What counts as growth: a leak does, noise, a warm-up and a saw-tooth do not."""

from __future__ import annotations

import math
from random import Random

import pytest
from trend import CONFIDENCE, Sample, slope, students_t, trend

EVERY_SECONDS = 10.0
COUNT = 150
BASE = 60_000.0


def series(leak_a_second: float = 0.0, noise: float = 300.0, seed: int = 1, count: int = COUNT) -> list[Sample]:
    """Something like the resident kilobytes of a process."""
    random = Random(seed)
    moments = [EVERY_SECONDS * number for number in range(count)]
    return [(at, BASE + leak_a_second * at + random.gauss(0, noise)) for at in moments]


@pytest.mark.parametrize("seed", range(20))
def test_noise_does_not_grow(seed: int) -> None:
    assert not trend(series(seed=seed)).grows


@pytest.mark.parametrize("seed", range(20))
def test_a_planted_leak_grows(seed: int) -> None:
    assert trend(series(leak_a_second=2.0, seed=seed)).grows


def test_noise_is_rarely_called_a_slope() -> None:
    found = [slope(series(seed=seed, count=64)) for seed in range(400)]
    share = sum(s.low > 0 or s.high < 0 for s in found) / len(found)
    assert share < 3 * (1 - CONFIDENCE)


def test_the_slope_is_that_of_the_leak() -> None:
    found = slope(series(leak_a_second=2.0))
    assert found.low < 2.0 < found.high
    assert found.rate == pytest.approx(2.0, rel=0.2)


def test_a_leak_that_matters_to_nobody_is_tolerated() -> None:
    a_day = 0.01 * BASE
    assert not trend(series(leak_a_second=a_day / 86_400, noise=0.1)).grows


def test_a_warm_up_that_comes_to_its_end_does_not_grow() -> None:
    warming = [(at, value + 3_000 * (1 - math.exp(-at / 200))) for at, value in series()]
    assert slope(warming).low > 0
    assert not trend(warming).grows


def test_a_step_that_stays_does_not_grow() -> None:
    assert not trend([(at, value + (2_000 if at > 400 else 0)) for at, value in series()]).grows


def test_a_count_that_never_moves_does_not_grow() -> None:
    found = trend([(at, 12.0) for at, _ in series()])
    assert (found.level, found.whole.rate, found.whole.margin, found.grows) == (12.0, 0.0, 0.0, False)


def test_one_more_descriptor_now_and_then_grows() -> None:
    assert trend([(at, 30.0 + at // 120) for at, _ in series()]).grows


def test_a_saw_tooth_does_not_grow() -> None:
    assert not trend([(at, 30.0 + (at // 10) % 7) for at, _ in series()]).grows


@pytest.mark.parametrize("samples", [[], [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)], [(5.0, float(n)) for n in range(40)]])
def test_what_cannot_be_told_is_refused(samples: list[Sample]) -> None:
    with pytest.raises(ValueError, match=r"too few|of one moment"):
        slope(samples)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 63.657), (2, 9.925), (3, 5.841), (5, 4.032), (8, 3.355), (14, 2.977), (60, 2.660)]
)
def test_students_t_is_that_of_the_tables(freedom: int, quantile: float) -> None:
    assert students_t(0.99, freedom) == pytest.approx(quantile, rel=0.025)
