"""What callers saw of a service, and what befell its instances meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Record:
    """``failures`` and ``events`` are (when, what), when by the monotonic clock; durations are seconds.

    ``late`` is by how much requests were sent later than they were due, ``unsent`` how many could not be sent anywhere
    near their time: how starved the sender was. ``statistics`` are those of each client's resolver, ``news`` what each
    of them has seen of the service: (when, addresses).
    """

    began: float = field(default_factory=time.monotonic)
    seconds: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    unsent: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)
    statistics: list[dict[str, Any]] = field(default_factory=list)
    news: list[list[tuple[float, list[str]]]] = field(default_factory=list)

    def happened(self, what: str) -> None:
        self.events.append((time.monotonic(), what))

    def found(self) -> dict[str, Any]:
        """What :meth:`add` takes, for JSON."""
        names = ("seconds", "late", "unsent", "failures", "served", "statistics", "news")
        return {name: getattr(self, name) for name in names}

    def add(self, found: dict[str, Any]) -> None:
        """Add what one process of :mod:`shopper` has recorded."""
        self.seconds += found["seconds"]
        self.late += found["late"]
        self.unsent += found["unsent"]
        self.failures += [(when, what) for when, what in found["failures"]]
        self.served.update(found["served"])
        self.statistics += found["statistics"]
        self.news += [[(when, addresses) for when, addresses in seen] for seen in found["news"]]

    def converged(self, addresses: set[str], since: float) -> float:
        """How many seconds after ``since`` the last client knew these ``addresses`` and no others; infinite if never.

        For good is meant: what a client has seen afterwards does not count, unless ``since`` is later.
        """
        return max(
            min([max(0.0, when - since) for when, seen in news if set(seen) == addresses], default=float("inf"))
            for news in self.news
        )

    @property
    def report(self) -> str:
        """Failures beside the events that may explain them."""
        failed = [(when, f"FAILED {what}") for when, what in self.failures]
        lines = [f"{when - self.began:8.2f} {what}" for when, what in sorted([*self.events, *failed])]
        late = f"{1000 * max(self.late, default=0.0):.0f} ms late at most"
        return "\n".join([*lines, f"{len(self.late)} sent, {late}; {self.unsent} not sent"])
