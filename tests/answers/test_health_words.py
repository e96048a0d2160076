"""The word and the number for how a service is, from all witnesses."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
from stack_at_a_moment import BEGAN, NOW, ready, run, seeing, spec, stack

from citadel_consul.core.health import (
    Status,
    instance_score,
    instance_status,
    overall,
    service_score,
    service_status,
    service_statuses,
    stack_score,
    stack_status,
)
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Instance
from citadel_consul.core.snapshot import CheckStatus, Hold

STOP = Desired(run=False, generation=2)
IT = Instance("redis", "n1")


class Case(NamedTuple):
    """What is wanted, seen and checked of an instance, and the word for it with an agent and without one."""

    name: str
    desired: Desired | None
    observed: Observed | None
    check: CheckStatus | None
    word: Status
    unwatched: Status


def seen(phase: Phase, generation: int = 1, started_at: float | None = NOW - 5) -> Observed:
    return Observed(generation, phase, since=NOW - 5, started_at=started_at)


CASES = (
    Case("never heard of", None, None, None, Status.STOPPED, Status.STOPPED),
    Case("ordered, not taken up", run(), None, None, Status.STARTING, Status.UNKNOWN),
    Case("ordered again, not taken up", run(2), seen(Phase.EXITED), None, Status.STARTING, Status.UNKNOWN),
    Case("starting", run(), seen(Phase.STARTING), None, Status.STARTING, Status.UNKNOWN),
    Case("starting for too long", run(), seen(Phase.STARTING, 1, BEGAN), None, Status.UNHEALTHY, Status.UNKNOWN),
    Case("ready", run(), ready(), None, Status.HEALTHY, Status.UNKNOWN),
    Case("ready and passing", run(), ready(), CheckStatus.PASSING, Status.HEALTHY, Status.UNKNOWN),
    Case("a check warns", run(), ready(), CheckStatus.WARNING, Status.DEGRADED, Status.UNKNOWN),
    Case("a check fails", run(), ready(), CheckStatus.CRITICAL, Status.UNHEALTHY, Status.UNHEALTHY),
    Case("in maintenance", run(), ready(), CheckStatus.MAINTENANCE, Status.HELD, Status.UNKNOWN),
    Case("ended unasked", run(), seen(Phase.EXITED), None, Status.UNHEALTHY, Status.UNHEALTHY),
    Case("could not be started", run(), seen(Phase.FAILED), None, Status.FAILED, Status.FAILED),
    Case("has done its work", run(), seen(Phase.COMPLETED), None, Status.HEALTHY, Status.HEALTHY),
    Case("on its way down", STOP, seen(Phase.STOPPING), None, Status.STOPPED, Status.UNKNOWN),
    Case("stopped", STOP, seen(Phase.STOPPED, 2), None, Status.STOPPED, Status.STOPPED),
    Case("ended, and not wanted", STOP, seen(Phase.EXITED, 2), None, Status.STOPPED, Status.STOPPED),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_word_for_an_instance(case: Case) -> None:
    snapshot = seeing(stack(spec("redis")), "redis", case.observed, case.desired, case.check)
    assert instance_status(snapshot, IT, NOW) is case.word
    assert instance_status(replace(snapshot, agents=frozenset()), IT, NOW) is case.unwatched


@pytest.mark.parametrize(
    ("hold", "word"),
    [
        (Hold("service", "redis"), Status.HELD),
        (Hold("node", "n1"), Status.HELD),
        (Hold("stack", "demo"), Status.HELD),
        (Hold("service", "redis", until=NOW + 1), Status.HELD),
        (Hold("service", "redis", until=NOW), Status.UNHEALTHY),
        (Hold("service", "qdrant"), Status.UNHEALTHY),
        (Hold("node", "n2"), Status.UNHEALTHY),
    ],
)
def test_a_hold_shows_on_what_is_broken_as_long_as_it_stands(hold: Hold, word: Status) -> None:
    broken = seeing(stack(spec("redis")), "redis", seen(Phase.EXITED), run())
    assert instance_status(replace(broken, holds=(hold,)), IT, NOW) is word


def test_a_hold_does_not_hide_that_a_service_serves() -> None:
    held = replace(stack(spec("redis")), holds=(Hold("service", "redis"),))
    assert service_status(held, "redis", NOW) is Status.HEALTHY


@pytest.mark.parametrize(
    ("words", "word"),
    [
        ("", "unknown"),
        ("healthy healthy", "healthy"),
        ("healthy degraded", "degraded"),
        ("healthy unhealthy", "degraded"),
        ("healthy stopped", "degraded"),
        ("unhealthy failed", "failed"),
        ("unhealthy stopped", "unhealthy"),
        ("held unknown", "held"),
        ("starting stopped", "starting"),
        ("unknown starting", "unknown"),
        ("stopped stopped", "stopped"),
    ],
)
def test_the_word_for_several_instances(words: str, word: str) -> None:
    assert overall(Status(one) for one in words.split()) == word


@pytest.mark.parametrize(
    ("words", "score"),
    [
        ("", None),
        ("healthy", 100.0),
        ("degraded", 75.0),
        ("healthy degraded", 87.5),
        ("healthy unhealthy failed", 33.3),
        ("starting", 0.0),
        ("held", 0.0),
        ("stopped", None),
        ("unknown", None),
        ("healthy unknown", 100.0),
    ],
)
def test_the_score_of_a_service_is_the_mean_of_what_is_known(words: str, score: float | None) -> None:
    assert service_score(instance_score(Status(one)) for one in words.split()) == score


def test_eleven_of_twelve_services_make_a_score_of_91_7() -> None:
    assert stack_score([Status.HEALTHY] * 11 + [Status.UNHEALTHY]) == 91.7
    assert stack_score([Status.HEALTHY] * 11 + [Status.DEGRADED]) == 91.7
    assert stack_score([]) is None


@pytest.mark.parametrize(
    ("critical", "other", "word"),
    [
        ("healthy", "unhealthy", "healthy"),
        ("degraded", "healthy", "degraded"),
        ("unhealthy", "healthy", "unhealthy"),
        ("failed", "healthy", "unhealthy"),
        ("held", "healthy", "unhealthy"),
        ("unknown", "healthy", "unknown"),
        ("starting", "healthy", "starting"),
        ("stopped", "healthy", "degraded"),
        ("stopped", "stopped", "stopped"),
    ],
)
def test_the_stack_goes_by_its_critical_services(critical: str, other: str, word: str) -> None:
    snapshot = stack(spec("a"), spec("b", critical=False))
    assert stack_status(snapshot, {"a": Status(critical), "b": Status(other)}) == word


def test_a_stack_without_critical_services_goes_by_all() -> None:
    snapshot = stack(spec("a", critical=False), spec("b", critical=False))
    assert stack_status(snapshot, {"a": Status.HEALTHY, "b": Status.UNHEALTHY}) is Status.UNHEALTHY
    assert stack_status(stack(), {}) is Status.UNKNOWN


def test_services_are_told_in_the_order_of_their_start() -> None:
    from citadel_consul.core.model import Edge

    snapshot = stack(spec("a"), spec("b"), edges=(Edge("a", "b"),))
    assert list(service_statuses(snapshot, NOW)) == ["b", "a"]


@pytest.mark.parametrize(
    ("status", "slowness", "score"),
    [
        (Status.HEALTHY, 0.0, 100.0),
        (Status.HEALTHY, 0.4, 90.0),
        (Status.HEALTHY, 1.0, 75.0),
        (Status.HEALTHY, 7.0, 75.0),
        (Status.DEGRADED, 1.0, 56.25),
        (Status.UNHEALTHY, 0.1, 0.0),
        (Status.STOPPED, 0.1, None),
    ],
)
def test_who_answers_at_the_last_moment_is_worth_a_quarter_less(
    status: Status, slowness: float, score: float | None
) -> None:
    assert instance_score(status, slowness) == score
