"""Stats: what is counted of each service over days, as documents that outlive every leader.

The documents hold sums, and for each instance one open interval; ``core.accounting`` has the rules by which they grow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from citadel_consul.core.incident import STACK

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


Sums = Mapping[Standing, float]
"""Seconds in each standing."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account of one instance. Times are seconds, ``since`` is unix seconds.

    ``failures`` counts how often it became ``unplanned``, ``restarts`` the starts after the first. ``started_at`` and
    ``ready_at`` are those of the last process that was counted; ``start_seconds`` holds how long the latest starts
    took, from exec to the first passing check.
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

    def sums_at(self, now: float) -> Sums:
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
    """What is counted of one service: an account for each node, and its recoveries.

    A recovery is an operation that recovers the service, whoever asked for it; ``counted`` are those of the latest that
    were counted, so that none is counted twice. The stack has an account of its own, under the name
    :data:`~citadel_consul.core.incident.STACK`, as if it were a service with one instance.
    """

    service: str
    instances: Mapping[str, Account] = field(default_factory=dict)
    recoveries_succeeded: int = 0
    recoveries_failed: int = 0
    counted: tuple[str, ...] = ()

    @property
    def restarts(self) -> int:
        """The starts of its instances after their first."""
        return sum(account.restarts for account in self.instances.values())

    @property
    def failures(self) -> int:
        """How often an instance of it stopped serving unasked."""
        return sum(account.failures for account in self.instances.values())

    def sums_at(self, now: float) -> Sums:
        """The seconds that its instances spent in each standing up to ``now``, added up."""
        return added(account.sums_at(now) for account in self.instances.values())

    def standing(self) -> Standing:
        """Where the service stands: up if any instance is, else unplanned if any is."""
        found = {account.standing for account in self.instances.values()}
        return next((word for word in (Standing.UP, Standing.UNPLANNED) if word in found), Standing.PLANNED)


def added(sums: Iterable[Sums]) -> Sums:
    """The sum of ``sums``."""
    found = list(sums)
    return {standing: sum(each[standing] for each in found) for standing in Standing}


def availability(stats: ServiceStats, now: float) -> float | None:
    """The share of the time in which a service was wanted and served, in percent; None if it was never wanted.

    Planned downtime does not count, as in the usual definition of availability over scheduled time.
    """
    sums = stats.sums_at(now)
    wanted = sums[Standing.UP] + sums[Standing.UNPLANNED]
    return None if wanted <= 0 else 100.0 * sums[Standing.UP] / wanted


def stack_account(stats: Mapping[str, ServiceStats]) -> Account | None:
    """The account of the stack as a whole; None until it has been wanted."""
    found = stats.get(STACK)
    return None if found is None else found.instances.get(STACK)
