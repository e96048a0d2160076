"""The benchmark computes what it claims to."""

from __future__ import annotations

import math

from critical_path import critical_path, efficiency, hop_seconds
from pytest import approx  # noqa: PT013  # the name says it all


def test_a_chain_takes_the_sum_of_its_services() -> None:
    seconds = {"a": 1.0, "b": 2.0, "c": 4.0}
    assert critical_path(seconds, [("b", "a"), ("c", "b")]) == (7.0, ("a", "b", "c"))


def test_of_two_ways_the_longer_one_counts() -> None:
    seconds = {"base": 1.0, "quick": 0.1, "slow": 3.0, "top": 0.5}
    edges = [("quick", "base"), ("slow", "base"), ("top", "quick"), ("top", "slow")]
    assert critical_path(seconds, edges) == (4.5, ("base", "slow", "top"))


def test_services_without_edges_run_side_by_side() -> None:
    assert critical_path({"a": 1.0, "b": 3.0, "c": 2.0}, []) == (3.0, ("b",))


def test_a_long_chain_and_nothing_at_all() -> None:
    names = [f"s{n}" for n in range(300)]
    edges = [(names[n], names[n - 1]) for n in range(1, 300)]
    assert critical_path(dict.fromkeys(names, 0.5), edges)[0] == approx(150.0)
    assert critical_path({}, []) == (0.0, ())


def test_efficiency_is_wall_by_path() -> None:
    assert efficiency(3.0, 1.5) == approx(2.0)
    assert math.isnan(efficiency(1.0, 0.0))


def test_the_cost_of_a_hop_is_what_the_services_did_not_take() -> None:
    assert hop_seconds(2.0, 1.0, 20) == approx(0.05)
    assert hop_seconds(2.0, 1.0, 0) == 0.0
