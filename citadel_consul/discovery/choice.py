"""Which instance gets the next request: pure functions over what is known.

Three rules, each of which covers a gap of the others:

- *Health first.* Consul's word is the only one about who serves at all: instances that pass, and those that warn only
  while none passes. It is late by the interval of a check.
- *Two choices.* Two instances are drawn by weight, and the one with the smaller load for its weight is taken. That is
  nearly as even as looking at all of them, and it does not send every client to the same idle newcomer. It also keeps
  requests away from an instance that hangs, before any check: what hangs is not released, so its load grows.
- *Ejection.* A broken connection is proof that no check has to confirm: that address is left out for a while, twice as
  long each time, until it answers again. Were all of them ejected, ejection would say nothing, and is ignored.

Loads count requests under way. An address is ``host:port``; it, not the registration, is what breaks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

from citadel_consul.consul.instances import PASSING, WARNING, Instance

Instances = tuple[Instance, ...]


def serving(instances: Sequence[Instance]) -> Instances:
    """Those that pass or, if none does, those that warn; in the order given."""
    passing = tuple([instance for instance in instances if instance.status == PASSING])
    return passing or tuple([instance for instance in instances if instance.status == WARNING])


def nearest(instances: Instances) -> Instances:
    """Of instances in order of distance, those on the node of the first."""
    return tuple([instance for instance in instances if instance.node == instances[0].node]) if instances else ()


def available(instances: Instances, ejected: Collection[str], tried: Collection[str] = ()) -> Instances:
    """Those that a request can go to which was ``tried`` at some addresses already.

    An address that was not tried comes before one that was not ejected; either rule gives way if it leaves nobody.
    """
    untried = tuple([instance for instance in instances if instance.address not in tried]) or instances
    return tuple([instance for instance in untried if instance.address not in ejected]) or untried


@dataclass(frozen=True, slots=True)
class Field:
    """Instances to choose from, with their weights added up. A weight of 0 is drawn only if all have it."""

    instances: Instances
    weights: tuple[int, ...]
    bounds: tuple[int, ...]

    @classmethod
    def of(cls, instances: Instances) -> Field:
        """The field of all ``instances``."""
        weights = tuple([max(0, instance.weight) for instance in instances])
        if not any(weights):
            weights = (1,) * len(instances)
        return cls(instances, weights, tuple(accumulate(weights)))

    def choose(self, loads: Mapping[str, int], first: float, second: float) -> Instance | None:
        """The less loaded of two that the random numbers ``first`` and ``second`` of [0, 1) draw; None of nobody.

        Load is measured against weight. Of two that are equal in it, the first is taken.
        """
        if not self.instances:
            return None
        total = self.bounds[-1]
        # Whole numbers, because a sum of fractions can be rounded up to the end of the line, where nobody is.
        one = bisect_right(self.bounds, int(first * total))
        rest = total - self.weights[one]
        if rest == 0:
            return self.instances[one]
        # A point on the line of the others, which is the whole line with the span of ``one`` cut out.
        point = int(second * rest)
        if point >= self.bounds[one] - self.weights[one]:
            point += self.weights[one]
        other = bisect_right(self.bounds, point)
        return self.instances[other if self._load(loads, other) < self._load(loads, one) else one]

    def _load(self, loads: Mapping[str, int], place: int) -> float:
        """How loaded it would be with one request more."""
        return (loads.get(self.instances[place].address, 0) + 1) / self.weights[place]


@dataclass(frozen=True, slots=True)
class EjectionRule:
    """When an address is left out and for how long.

    A broken connection ejects at once, for ``first_seconds``, then twice as long each time, up to ``longest_seconds``.
    A request that is slow is no proof of anything, but ``timeouts`` of them in a row are taken as one, and so is the
    first one after an ejection: that it ended was a trial.
    """

    first_seconds: float = 0.5
    longest_seconds: float = 20.0
    timeouts: int = 3


@dataclass(frozen=True, slots=True)
class Account:
    """What is held against one address. An answer, any answer, clears it."""

    ejections: int = 0
    timeouts: int = 0
    until: float = float("-inf")

    def ejected(self, now: float) -> bool:
        """Whether the address is to be left out at ``now``."""
        return now < self.until

    def broken(self, rule: EjectionRule, now: float) -> Account:
        """The account after a connection broke or could not be made.

        The errors of requests that were under way together are one event: they do not add up to a longer ejection.
        """
        if self.ejected(now):
            return self
        step = rule.first_seconds * 2.0 ** min(self.ejections, 32)
        return Account(self.ejections + 1, 0, now + min(step, rule.longest_seconds))

    def timed_out(self, rule: EjectionRule, now: float) -> Account:
        """The account after no answer came in time."""
        counted = replace(self, timeouts=self.timeouts + 1)
        enough = counted.timeouts >= rule.timeouts or self.ejections > 0
        return counted.broken(rule, now) if enough else counted


CLEAR: Final = Account()
