"""Who may keep a blocking query open, when not everybody can.

A blocking query takes a connection for as long as it waits, and Consul takes 200 of them from one host
(``http_max_conns_per_client``), all processes together. So a process keeps a bounded number, for the services that it
uses; the others are asked for from time to time instead, which takes a connection for a millisecond. One connection for
all is not to be had: HTTP/2 needs TLS, and the queries that see several services at once (``health/state/any``,
``catalog/services``) wake for every change of the whole datacenter.

A slot is given back by who was not used for a while, and only if there are more services than slots: services in steady
use do not take it from each other.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

IDLE_SECONDS = 60.0
"""How long a service keeps its slot without being used, if another one could use it."""


@dataclass(slots=True)
class Slots:
    """``limit`` slots for blocking queries; ``candidates`` is how many services there are."""

    limit: int
    candidates: int = 0
    _holders: set[Hashable] = field(default_factory=set)

    def grant(self, who: Hashable, idle_seconds: float) -> bool:
        """Whether ``who``, not used for ``idle_seconds``, may wait in a blocking query now. Ask before each one."""
        idle = self.candidates > self.limit and idle_seconds >= IDLE_SECONDS
        if idle or (who not in self._holders and len(self._holders) >= self.limit):
            self._holders.discard(who)
            return False
        self._holders.add(who)
        return True

    def leave(self, who: Hashable) -> None:
        """``who`` will not ask any more."""
        self._holders.discard(who)
