"""The choice of an instance, as tables and properties of pure functions."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from discovery_instances import instance
from hypothesis import example, given
from hypothesis import strategies as st

from citadel_consul.consul.instances import Instance
from citadel_consul.discovery.choice import CLEAR, Account, EjectionRule, Field, available, nearest, serving

RULE = EjectionRule(first_seconds=1.0, longest_seconds=8.0, timeouts=3)

weights = st.lists(st.integers(0, 100), min_size=1, max_size=12)
draws = st.floats(0, 1, exclude_max=True)


def ports(instances: tuple[Instance, ...]) -> list[int]:
    return [one.port for one in instances]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["passing", "passing"], [1, 2]),
        (["passing", "warning", "critical"], [1]),
        (["critical", "warning", "warning"], [2, 3]),
        (["critical"], []),
        ([], []),
    ],
)
def test_instances_that_warn_serve_only_while_none_passes(statuses: list[str], expected: list[int]) -> None:
    assert ports(serving([instance(port, status) for port, status in enumerate(statuses, 1)])) == expected


def test_the_nearest_are_those_on_the_first_ones_node() -> None:
    here, there, also_here = instance(1, node="a"), instance(2, node="b"), instance(3, node="a")
    assert nearest((here, there, also_here)) == (here, also_here)
    assert nearest(()) == ()


@pytest.mark.parametrize(
    ("ejected", "tried", "expected"),
    [
        ([], [], [1, 2, 3]),
        ([1], [], [2, 3]),
        ([1, 2, 3], [], [1, 2, 3]),  # were all ejected, ejection says nothing
        ([], [1], [2, 3]),
        ([2], [1], [3]),
        ([2, 3], [1], [2, 3]),  # rather an ejected one than one that failed this very request
        ([], [1, 2, 3], [1, 2, 3]),
        ([1], [1, 2, 3], [2, 3]),
    ],
)
def test_untried_comes_before_not_ejected_and_both_before_nobody(
    ejected: list[int], tried: list[int], expected: list[int]
) -> None:
    everybody = tuple(instance(port) for port in (1, 2, 3))
    found = available(everybody, {f"10.0.0.1:{port}" for port in ejected}, {f"10.0.0.1:{port}" for port in tried})
    assert ports(found) == expected


@pytest.mark.parametrize(
    ("loads", "first", "second", "expected"),
    [
        ({}, 0.0, 0.0, 1),  # equal loads: the first that was drawn
        ({}, 0.99, 0.0, 3),
        ({1: 1}, 0.0, 0.0, 2),  # the second is less loaded
        ({1: 1}, 0.0, 0.99, 3),
        ({1: 1, 2: 2}, 0.0, 0.0, 1),
        ({1: 9, 2: 0, 3: 9}, 0.0, 0.99, 1),  # the idle one was not drawn
    ],
)
def test_of_two_choices_the_less_loaded_is_taken(
    loads: dict[int, int], first: float, second: float, expected: int
) -> None:
    field = Field.of(tuple(instance(port) for port in (1, 2, 3)))
    chosen = field.choose({f"10.0.0.1:{port}": load for port, load in loads.items()}, first, second)
    assert chosen is not None
    assert chosen.port == expected


def test_load_is_measured_against_weight() -> None:
    field = Field.of((instance(1, weight=30), instance(2, weight=10)))
    # With three times the weight, two requests under way are as much as nothing is for the other.
    assert field.choose({"10.0.0.1:1": 1}, 0.0, 0.0) == field.instances[0]
    assert field.choose({"10.0.0.1:1": 2}, 0.0, 0.0) == field.instances[0]
    assert field.choose({"10.0.0.1:1": 3}, 0.0, 0.0) == field.instances[1]


def test_nobody_is_chosen_of_nobody() -> None:
    assert Field.of(()).choose({}, 0.5, 0.5) is None


@given(weights, draws, draws)
@example([0, 0], 0.0, 1 - 2**-53)
@example([3, 2], 1 - 2**-53, 1 - 2**-53)
def test_a_weight_of_zero_is_drawn_only_if_all_have_it(given_weights: list[int], first: float, second: float) -> None:
    field = Field.of(tuple(instance(port, weight=weight) for port, weight in enumerate(given_weights, 1)))
    chosen = field.choose({}, first, second)
    assert chosen is not None
    assert chosen.weight > 0 or not any(given_weights)


@given(weights, draws, draws)
def test_the_two_choices_are_never_the_same_instance(given_weights: list[int], first: float, second: float) -> None:
    field = Field.of(tuple(instance(port, weight=weight) for port, weight in enumerate(given_weights, 1)))
    one = field.choose({}, first, second)
    assert one is not None
    others = [other for other, weight in zip(field.instances, field.weights, strict=True) if weight and other != one]
    other = field.choose({one.address: 10**9}, first, second)
    assert (other != one) == bool(others)


@pytest.mark.parametrize("given_weights", [[1, 1, 1], [10, 10, 20], [1, 0, 3], [0, 0]])
def test_without_load_each_is_chosen_by_its_weight(given_weights: list[int]) -> None:
    field = Field.of(tuple(instance(port, weight=weight) for port, weight in enumerate(given_weights, 1)))
    steps = [(step + 0.5) / 1000 for step in range(1000)]
    counted = Counter(chosen.port for step in steps if (chosen := field.choose({}, step, 0.5)))
    shares = given_weights if any(given_weights) else [1] * len(given_weights)
    # Load against weight decides first, so that a heavier one of the two always wins: at least its share is its own.
    heaviest = max(range(len(shares)), key=shares.__getitem__)
    assert counted[heaviest + 1] >= 1000 * shares[heaviest] / sum(shares) - 1
    assert all(counted[place] == 0 for place, share in enumerate(shares, 1) if share == 0)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=8), st.integers())
def test_requests_that_pile_up_settle_in_proportion_to_weight(given_weights: list[int], seed: int) -> None:
    draw = random.Random(seed).random
    field = Field.of(tuple(instance(port, weight=weight) for port, weight in enumerate(given_weights, 1)))
    loads: dict[str, int] = {}
    for _ in range(200 * len(given_weights)):
        chosen = field.choose(loads, draw(), draw())
        assert chosen is not None
        loads[chosen.address] = loads.get(chosen.address, 0) + 1
    per_weight = [loads.get(one.address, 0) / one.weight for one in field.instances]
    assert max(per_weight) < 1.5 * sum(loads.values()) / sum(given_weights)


def test_a_broken_connection_ejects_at_once_and_longer_each_time() -> None:
    account, now, lengths = CLEAR, 0.0, []
    for _ in range(6):
        account = account.broken(RULE, now)
        lengths.append(account.until - now)
        now = account.until
        assert not account.ejected(now)
    assert lengths == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_errors_of_requests_that_were_under_way_together_count_once() -> None:
    once = CLEAR.broken(RULE, 10.0)
    assert once.broken(RULE, 10.5) == once


def test_only_several_timeouts_in_a_row_eject() -> None:
    account = CLEAR
    for _ in range(2):
        account = account.timed_out(RULE, 0.0)
        assert not account.ejected(0.0)
    assert account.timed_out(RULE, 0.0) == Account(ejections=1, timeouts=0, until=1.0)


def test_an_outage_of_years_does_not_overflow() -> None:
    account = Account(ejections=100_000)
    assert account.broken(RULE, 0.0).until == 8.0
