"""The delays and the end of a bout are tenacity's, built from each policy."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from clinic import clinic_of, patient
from tenacity import stop_after_attempt, stop_after_delay, wait_random_exponential

from citadel_consul.core.healing.policy import Policy, policy_of
from citadel_consul.core.incident import Incident, IncidentState
from citadel_consul.core.snapshot import Snapshot
from citadel_consul.orchestrator.backoff import Backoffs, bout, retrying

POLICY = Policy(
    enabled=True,
    attempts=3,
    delay_seconds=60.0,
    max_delay_seconds=300.0,
    total_seconds=1800.0,
    reset_after_seconds=600.0,
    restart_degraded=False,
)


def longest(policy: Policy, attempts: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """The longest delay that can be drawn after so many attempts."""
    retry = retrying(policy)
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    return float(retry.wait(bout(retry, attempts, 0.0, 0.0)))


@pytest.mark.parametrize(
    ("attempts", "delay", "cap", "expected"),
    [
        (1, 60.0, 300.0, 60.0),
        (2, 60.0, 300.0, 120.0),
        (3, 60.0, 300.0, 240.0),
        (4, 60.0, 300.0, 300.0),
        (900, 60.0, 300.0, 300.0),
        (1, 0.0, 300.0, 0.0),
        (7, 0.0, 300.0, 0.0),
        (3, 1.0, 2.0, 2.0),
        (1, 0.5, 30.0, 0.5),
    ],
)
def test_the_longest_delay_after_an_attempt(
    attempts: int, delay: float, cap: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = replace(POLICY, delay_seconds=delay, max_delay_seconds=cap)
    assert longest(policy, attempts, monkeypatch) == expected


def test_delays_have_full_jitter() -> None:
    retry = retrying(POLICY)
    drawn = [float(retry.wait(bout(retry, 2, 0.0, 0.0))) for _ in range(500)]
    assert 0.0 <= min(drawn) < 12.0
    assert 108.0 < max(drawn) <= 120.0


@pytest.mark.parametrize("attempts", range(1, 6))
@pytest.mark.parametrize("elapsed", [0.0, 1799.9, 1800.0, 9999.0])
def test_a_bout_ends_when_tenacity_says_so(attempts: int, elapsed: float) -> None:
    retry = retrying(POLICY)
    state = bout(retry, attempts, 1_000.0, 1_000.0 + elapsed)
    own = stop_after_attempt(3)(state) or stop_after_delay(1800.0)(state)
    assert bool(retry.stop(state)) is own is (attempts >= 3 or elapsed >= 1800.0)


def test_the_wait_is_tenacitys_random_exponential() -> None:
    retry = retrying(POLICY)
    state = bout(retry, 2, 0.0, 0.0)
    random.seed(7)
    ours = [float(retry.wait(state)) for _ in range(20)]
    random.seed(7)
    theirs = wait_random_exponential(multiplier=60.0, max=300.0)
    assert ours == [float(theirs(state)) for _ in range(20)]


def snapshot_with(made: int, **policy: Any) -> Snapshot:
    snapshot = clinic_of([patient("a", **policy)]).snapshot()
    incident = Incident("i", "a", IncidentState.RECOVERING, 0.0, "process_exit", attempts=made)
    return replace(snapshot, incidents={"a": incident})


def test_the_same_question_gets_the_same_answer_until_the_next_attempt() -> None:
    backoffs = Backoffs()
    first = backoffs.of(snapshot_with(1), 1.0)["a"]
    assert [backoffs.of(snapshot_with(1), float(n))["a"] for n in range(5)] == [first] * 5
    second = backoffs.of(snapshot_with(2), 1.0)["a"]
    assert (second.attempts, second.exhausted) == (2, False)
    assert second.delay_seconds != first.delay_seconds


def test_a_changed_policy_is_asked_anew() -> None:
    backoffs = Backoffs()
    assert backoffs.of(snapshot_with(2, attempts=2), 1.0)["a"].exhausted
    assert not backoffs.of(snapshot_with(2, attempts=5), 1.0)["a"].exhausted


def test_no_delay_is_drawn_for_what_was_not_tried() -> None:
    assert Backoffs().of(snapshot_with(0), 1.0) == {}


def test_a_policy_takes_the_settings_where_the_spec_is_silent() -> None:
    snapshot = clinic_of([patient("a", attempts=7)]).snapshot()
    policy = policy_of(snapshot, "a")
    assert (policy.attempts, policy.delay_seconds, policy.enabled) == (7, 4.0, True)


def test_a_delay_from_the_settings_that_is_longer_than_the_cap_is_kept() -> None:
    snapshot = clinic_of([patient("a", max_delay_seconds=2.0)]).snapshot()
    assert policy_of(snapshot, "a").max_delay_seconds == 4.0
