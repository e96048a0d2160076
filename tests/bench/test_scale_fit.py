"""The fits of the scale benchmark find the law that points were made by."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from scale_fit import fits

SIZES = (100.0, 300.0, 1000.0, 3000.0, 10_000.0)


@pytest.mark.parametrize(
    ("law", "by"),
    [
        ("logarithmic", lambda n: 5.0 + 2.0 * math.log(n)),
        ("linear", lambda n: 5.0 + 0.01 * n),
        ("power", lambda n: 0.5 * n**1.5),
    ],
)
def test_points_of_a_law_are_told_to_be_of_that_law(law: str, by: Callable[[float], float]) -> None:
    best, *others = fits(SIZES, [by(n) for n in SIZES])
    assert best.law == law
    assert best.r2 == pytest.approx(1.0)
    assert all(other.r2 < 1.0 for other in others)
    assert best.at(500.0) == pytest.approx(by(500.0))


def test_what_does_not_grow_is_explained_by_any_law() -> None:
    assert {fit.r2 for fit in fits(SIZES, [7.0] * 5) if fit.law != "power"} == {1.0}


def test_a_fit_reads_as_a_formula() -> None:
    best = fits(SIZES, [5.0 + 0.01 * n for n in SIZES])[0]
    assert str(best) == "5 + 0.01 n (R² 1.00)"
