"""What a soak says of what was counted: what grows, what is left over, what is beyond its bound."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from judgement import Bound, Census, Row, judge

EVENTS = Bound("keys below events", 1000.0, "1000 events are kept")
TEXT = Bound("bytes below events", None, "as their keys")


def soaked(
    measure: str,
    value_at: Callable[[float], float],
    *,
    before: float | None = None,
    after: float | None = None,
    bounds: tuple[Bound, ...] = (),
) -> Row:
    """The row of one measure that was ``value_at(second)`` for half an hour."""
    samples: list[tuple[float, Census]] = [(at, {measure: value_at(at)}) for at in (10.0 * n for n in range(150))]
    first, last = [[] if value is None else [{measure: value}] for value in (before, after)]
    return next(row for row in judge(samples, first, last, bounds) if row.measure == measure)


def test_what_is_flat_and_the_same_at_both_rests_is_right() -> None:
    row = soaked("agent n1: sockets", lambda _: 12.0, before=12.0, after=12.0)
    assert row.wrong == ""
    assert row.told() == "| agent n1: sockets | 12 | +0 ± 0 | +0.0 % | 12 | 12 | flat |"


def test_what_grows_is_named_with_its_rate() -> None:
    row = soaked("agent n1: tasks", lambda at: 30.0 + at / 60.0, before=30.0, after=30.0)
    assert row.wrong == "**grows** by 60 an hour"


def test_memory_that_grows_is_named() -> None:
    assert "grows" in soaked("agent n1: resident KiB", lambda at: 60_000.0 + at).wrong


def test_one_more_at_rest_is_left_over() -> None:
    row = soaked("agent n1: tasks", lambda _: 12.0, before=12.0, after=13.0)
    assert row.wrong == "**left over**: 1"


@pytest.mark.parametrize(("after", "wrong"), [(15.0, ""), (16.0, "**left over**: 4")])
def test_some_connections_more_at_rest_are_those_of_a_pool(after: float, wrong: str) -> None:
    assert soaked("agent n1: sockets", lambda _: 12.0, before=12.0, after=after).wrong == wrong


def test_what_was_not_there_before_is_left_over() -> None:
    assert soaked("files in temporary files/itself", lambda _: 1.0, after=1.0).wrong == "**left over**: 1"


def test_fewer_at_rest_are_no_fault() -> None:
    assert soaked("checks", lambda _: 40.0, before=41.0, after=40.0).wrong == ""


def test_memory_at_rest_is_judged_by_its_trend_alone() -> None:
    assert soaked("agent n1: resident KiB", lambda _: 60_000.0, before=59_000.0, after=61_000.0).wrong == ""


@pytest.mark.parametrize(("after", "wrong"), [(1090.0, ""), (1200.0, "**left over**: 200")])
def test_some_more_bytes_at_rest_are_tolerated(after: float, wrong: str) -> None:
    assert soaked("bytes below observed", lambda _: 1000.0, before=1000.0, after=after).wrong == wrong


def test_what_is_bounded_may_grow_up_to_its_bound() -> None:
    row = soaked("keys below events", lambda at: at / 2, before=1.0, after=750.0, bounds=(EVENTS, TEXT))
    assert row.wrong == ""


def test_what_is_beyond_its_bound_is_named_with_the_reason_for_it() -> None:
    row = soaked("keys below events", lambda at: at, bounds=(EVENTS, TEXT))
    assert row.wrong == "**1490 is beyond 1000** (1000 events are kept)"


@pytest.mark.parametrize(("after", "wrong"), [(1.0, ""), (3.0, "**left over**: 2")])
def test_what_comes_and_goes_by_what_happens_has_to_be_as_before_at_rest(after: float, wrong: str) -> None:
    holds = Bound("keys below holds", 30.0, "set and lifted", at_rest=True)
    row = soaked("keys below holds", lambda at: 1.0 + at / 100, before=1.0, after=after, bounds=(holds,))
    assert row.wrong == wrong


def test_what_another_measure_tells_is_not_judged() -> None:
    assert soaked("bytes below events", lambda at: at, before=1.0, after=9.0, bounds=(EVENTS, TEXT)).wrong == ""


def test_what_comes_and_goes_at_rest_is_not_left_over() -> None:
    looks: list[Census] = [{"sessions": 7.0}, {"sessions": 6.0}, {"sessions": 7.0}]
    (row,) = judge([(0.0, {"sessions": 6.0})], [{"sessions": 6.0}], looks, ())
    assert (row.after, row.wrong) == (6.0, "")


def test_what_was_seen_too_seldom_for_a_trend_is_judged_at_rest() -> None:
    (row,) = judge([(0.0, {"sessions": 6.0})], [{"sessions": 6.0}], [{"sessions": 9.0}], ())
    assert row.trend is None
    assert row.wrong == "**left over**: 3"
