"""The choice for one service, kept up to date: who serves, how loaded each is, and what is held against it.

The state around the pure functions of ``choice`` and ``roster``. Threads may share it: requests choose and release
while a watch brings news. A lock guards each step; none of them waits for anything.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection
from enum import Enum
from time import monotonic
from typing import Final

from citadel_consul.consul.instances import Instance
from citadel_consul.discovery.choice import (
    CLEAR,
    Account,
    EjectionRule,
    Field,
    Instances,
    available,
    nearest,
)
from citadel_consul.discovery.roster import Roster

DEFAULT_EJECTION: Final = EjectionRule()


class Outcome(Enum):
    """How a request to an instance ended. ``UNKNOWN``: it was given up, which says nothing about the instance."""

    ANSWERED = "answered"
    BROKEN = "broken"
    TIMED_OUT = "timed out"
    UNKNOWN = "unknown"


class Balancer:
    """Chooses among the instances of one service. ``near`` keeps to the nearest node while anybody serves there."""

    def __init__(
        self,
        *,
        near: bool = False,
        ejection: EjectionRule = DEFAULT_EJECTION,
        clock: Callable[[], float] = monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._near = near
        self._rule = ejection
        self._clock = clock
        self._draw = draw
        self._lock = threading.Lock()
        self._roster = Roster()
        self._field = Field.of(())
        self._loads: dict[str, int] = {}
        self._accounts: dict[str, Account] = {}

    @property
    def roster(self) -> Roster:
        """Who serves, as of now."""
        with self._lock:
            self._refresh()
            return self._roster

    def update(self, change: Callable[[Roster, float], Roster]) -> bool:
        """Replace the roster by what ``change(roster, now)`` makes of it; whether other instances serve now."""
        with self._lock:
            before = self._roster.instances
            self._install(change(self._roster, self._clock()))
            return self._roster.instances != before

    def acquire(self, tried: Collection[str] = ()) -> Instance | None:
        """Choose an instance for a request that failed at the addresses ``tried``; None if nobody serves.

        Every instance acquired has to be released.
        """
        with self._lock:
            self._refresh()
            field = self._field
            if tried or self._accounts:
                ejected = self._ejected()
                if tried or ejected:
                    field = self._field_of(available(self._roster.instances, ejected, tried))
            chosen = field.choose(self._loads, self._draw(), self._draw())
            if chosen is not None:
                self._loads[chosen.address] = self._loads.get(chosen.address, 0) + 1
            return chosen

    def release(self, instance: Instance, outcome: Outcome) -> None:
        """The request to ``instance`` has ended."""
        address = instance.address
        with self._lock:
            load = self._loads.pop(address, 0)
            if load > 1:
                self._loads[address] = load - 1
        self.report(instance, outcome)

    def report(self, instance: Instance, outcome: Outcome) -> None:
        """Take note of how a request went that may not have been acquired here."""
        address = instance.address
        with self._lock:
            account = self._accounts.get(address)
            if outcome is Outcome.ANSWERED:
                if account is not None:
                    del self._accounts[address]
            elif outcome is Outcome.BROKEN:
                self._accounts[address] = (account or CLEAR).broken(self._rule, self._clock())
            elif outcome is Outcome.TIMED_OUT:
                self._accounts[address] = (account or CLEAR).timed_out(self._rule, self._clock())

    def untried(self, tried: Collection[str]) -> bool:
        """Whether anybody serves at an address other than those ``tried``."""
        return any(instance.address not in tried for instance in self.roster.instances)

    def _ejected(self) -> set[str]:
        now = self._clock()
        return {address for address, account in self._accounts.items() if account.ejected(now)}

    def _field_of(self, instances: Instances) -> Field:
        return Field.of(nearest(instances) if self._near else instances)

    def _refresh(self) -> None:
        if self._roster.until is not None:
            self._install(self._roster.at(self._clock()))

    def _install(self, roster: Roster) -> None:
        before, self._roster = self._roster.instances, roster
        if roster.instances == before:
            return
        known = {instance.address for instance in before}
        current = {instance.address for instance in roster.instances}
        # Who comes back has passed its checks since it was held against it; who is gone is nobody's concern.
        self._accounts = {a: account for a, account in self._accounts.items() if a in known and a in current}
        self._field = self._field_of(roster.instances)
