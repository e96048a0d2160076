"""Accounts: where an instance's time goes, over transitions, restarts and changes of the leader."""

from __future__ import annotations

from dataclasses import replace

import pytest

from citadel_consul.core.accounting import account
from citadel_consul.core.graph import build_graph
from citadel_consul.core.lifecycle import Desired, Observed, Phase
from citadel_consul.core.model import Instance, ProcessBackend, ServiceSpec
from citadel_consul.core.snapshot import CheckStatus, Snapshot
from citadel_consul.core.stats import STARTS_KEPT, ServiceStats, Standing, availability

WEB = Instance("web", "n1")
SPEC = ServiceSpec("web", "test", ("n1",), ProcessBackend(("x",)))
READY = Observed(1, Phase.READY, since=10.0, started_at=8.0, ready_at=10.0)


def _snapshot(desired: Desired | None, observed: Observed | None, check: CheckStatus | None = None) -> Snapshot:
    graph, _ = build_graph(["web"], [])
    return Snapshot(
        stack="s",
        specs={"web": SPEC},
        graph=graph,
        desired={} if desired is None else {WEB: desired},
        observed={} if observed is None else {WEB: observed},
        checks={} if check is None else {WEB: check},
    )


UP = _snapshot(Desired(True, 1), READY)
DEAD = _snapshot(Desired(True, 1), replace(READY, phase=Phase.EXITED))
OFF = _snapshot(Desired(False, 2), replace(READY, phase=Phase.STOPPED, generation=2))


def _run(*moments: tuple[float, Snapshot]) -> ServiceStats:
    stats = ServiceStats("web")
    for now, snapshot in moments:
        stats = account(stats, snapshot, now)
    return stats


def test_time_goes_to_the_standing_that_it_was_spent_in() -> None:
    stats = _run((0, OFF), (10, UP), (40, DEAD), (45, UP), (65, OFF))
    sums = stats.instances["n1"].sums_at(75)
    assert sums == {Standing.UP: 50, Standing.UNPLANNED: 5, Standing.PLANNED: 20}
    assert availability(stats, 75) == pytest.approx(100 * 50 / 55)


def test_nothing_is_written_while_nothing_changes() -> None:
    stats = _run((0, UP))
    assert account(stats, UP, 500) is stats


def test_a_new_leader_goes_on_with_the_open_interval() -> None:
    at_once = _run((0, UP), (100, DEAD), (110, UP))
    with_failover = _run((0, UP), (60, UP), (100, DEAD), (105, DEAD), (110, UP))
    assert with_failover == at_once


def test_a_critical_check_is_unplanned_downtime() -> None:
    critical = _snapshot(Desired(True, 1), READY, CheckStatus.CRITICAL)
    assert _run((0, UP), (10, critical), (12, UP)).instances["n1"].unplanned_seconds == 2


def test_a_start_by_order_is_planned_and_one_by_recovery_is_not() -> None:
    starting = replace(READY, phase=Phase.STARTING, generation=2, ready_at=None)
    by_order = _snapshot(Desired(True, 2, reason="startup"), starting)
    by_recovery = _snapshot(Desired(True, 2, reason="recover"), starting)
    assert _run((0, by_order)).instances["n1"].standing is Standing.PLANNED
    assert _run((0, by_recovery)).instances["n1"].standing is Standing.UNPLANNED


def test_each_start_is_counted_once_with_how_long_it_took() -> None:
    again = _snapshot(Desired(True, 3), replace(READY, generation=3, started_at=50.0, ready_at=50.5))
    stats = _run((10, UP), (11, UP), (51, again), (52, again))
    counted = stats.instances["n1"]
    assert counted.start_seconds == (2.0, 0.5)
    assert counted.restarts == 1


def test_the_latest_starts_are_kept_and_no_more() -> None:
    stats = ServiceStats("web")
    for n in range(STARTS_KEPT + 5):
        observed = replace(READY, started_at=float(n * 10), ready_at=n * 10 + 1.0 + n)
        stats = account(stats, _snapshot(Desired(True, 1), observed), n * 10 + 9.0)
    assert stats.instances["n1"].start_seconds == tuple(1.0 + n for n in range(5, STARTS_KEPT + 5))


def test_what_was_never_wanted_has_no_availability() -> None:
    assert availability(_run((0, OFF)), 100) is None
