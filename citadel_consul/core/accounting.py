"""Accounts of each service: how long it was up, how long it was down, and whose wish that was.

An account has one open interval for each instance: in which state it is, and since when. When the state changes, the
interval is closed and its length is added to the sum of that state; so a document is written at transitions and never
by a timer, and what has happened up to any moment is the sums plus the open interval. A new leader finds the open
interval in the KV store and goes on with it: nothing is lost or counted twice by a failover.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import Condition, Instance
from citadel_consul.core.snapshot import Snapshot

STARTS_KEPT = 20
"""How many of the latest start times an account holds: enough for a mean and the extremes, bounded in size."""


class Standing(StrEnum):
    """What an instance's time is counted as.

    ``up``: it serves. ``planned``: it is down because nobody wants it up, or it is being started or stopped by order.
    ``unplanned``: it is wanted and does not serve.
    """

    UP = "up"
    PLANNED = "planned"
    UNPLANNED = "unplanned"


@dataclass(frozen=True, slots=True)
class Account:
    """The account of one instance. Times are seconds, ``since`` is unix seconds.

    ``starts`` and ``started_at`` are those of the last process that was counted; ``start_seconds`` holds how long the
    latest starts took, from exec to the first passing check.
    """

    standing: Standing
    since: float
    up_seconds: float = 0.0
    planned_seconds: float = 0.0
    unplanned_seconds: float = 0.0
    failures: int = 0
    restarts: int = 0
    started_at: float | None = None
    ready_at: float | None = None
    start_seconds: tuple[float, ...] = ()

    def sums_at(self, now: float) -> Mapping[Standing, float]:
        """The seconds in each standing up to ``now``, the open interval included."""
        open_seconds = max(0.0, now - self.since)
        sums = {
            Standing.UP: self.up_seconds,
            Standing.PLANNED: self.planned_seconds,
            Standing.UNPLANNED: self.unplanned_seconds,
        }
        return {**sums, self.standing: sums[self.standing] + open_seconds}


@dataclass(frozen=True, slots=True)
class ServiceStats:
    """What is counted of one service: an account for each node, and its recoveries."""

    service: str
    instances: Mapping[str, Account] = field(default_factory=dict)
    recoveries_succeeded: int = 0
    recoveries_failed: int = 0


def standing_of(snapshot: Snapshot, instance: Instance) -> Standing:
    """What the time of ``instance`` counts as now."""
    if snapshot.meets(instance, Condition.HEALTHY):
        return Standing.UP
    desired, observed = snapshot.desired.get(instance), snapshot.observed.get(instance)
    if desired is None or not desired.run:
        return Standing.PLANNED
    if observed is None or observed.generation < desired.generation:
        return Standing.PLANNED if desired.reason not in ("recover", "recovery") else Standing.UNPLANNED
    if observed.phase is Phase.STARTING and desired.reason not in ("recover", "recovery"):
        return Standing.PLANNED
    return Standing.UNPLANNED


def account(before: ServiceStats, snapshot: Snapshot, now: float) -> ServiceStats:
    """The stats of a service brought up to ``snapshot``; the very same object if nothing changed its standing."""
    accounts = {}
    for instance in snapshot.instances(before.service):
        known = before.instances.get(instance.node)
        standing = standing_of(snapshot, instance)
        observed = snapshot.observed.get(instance)
        fresh = Account(standing, now) if known is None else _carried_on(known, standing, now)
        accounts[instance.node] = _with_start(fresh, observed)
    unchanged = accounts.keys() == before.instances.keys() and all(
        accounts[node] == before.instances[node] for node in accounts
    )
    return before if unchanged else replace(before, instances=accounts)


def availability(stats: ServiceStats, now: float) -> float | None:
    """The share of the time in which a service was wanted and served, in percent; None if it was never wanted.

    Planned downtime does not count, as in the usual definition of availability over scheduled time.
    """
    sums = [account.sums_at(now) for account in stats.instances.values()]
    up = sum(each[Standing.UP] for each in sums)
    down = sum(each[Standing.UNPLANNED] for each in sums)
    return None if up + down <= 0 else 100.0 * up / (up + down)


def _carried_on(known: Account, standing: Standing, now: float) -> Account:
    if standing is known.standing:
        return known
    sums = known.sums_at(now)
    return replace(
        known,
        standing=standing,
        since=now,
        up_seconds=sums[Standing.UP],
        planned_seconds=sums[Standing.PLANNED],
        unplanned_seconds=sums[Standing.UNPLANNED],
        failures=known.failures + (standing is Standing.UNPLANNED),
    )


def _with_start(known: Account, observed: Observed | None) -> Account:
    """Take in a process that was not counted yet, and how long it took until it was ready."""
    if observed is None or observed.started_at is None:
        return known
    if observed.started_at != known.started_at:
        again = known.started_at is not None
        known = replace(known, started_at=observed.started_at, restarts=known.restarts + again)
    if observed.ready_at is not None and observed.ready_at != known.ready_at:
        took = round(max(0.0, observed.ready_at - observed.started_at), 3)
        latest = (*known.start_seconds, took)[-STARTS_KEPT:]
        known = replace(known, ready_at=observed.ready_at, start_seconds=latest)
    return known
