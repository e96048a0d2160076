"""Flapping: a service that fails and comes back by itself, again and again.

Restarting it does not help, and telling about each of its moods helps nobody. As for routes that flap, each lapse is a
penalty that decays by half in every half-life; above one threshold the service is quarantined, below a lower one it is
released. The moments of the lapses come from the node agents, so the penalty is a function of facts and of the time.

An attempt of recovery, or a person's, wipes the slate: what is being restarted has a budget for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

LAPSES_KEPT = 20
"""How many lapses are remembered of an instance: the most that a limit can be."""
SUPPRESS_SHARE = 0.8
REUSE_SHARE = 0.4
"""The thresholds, as shares of the number of lapses that count as flapping when they come at once."""


def penalty(lapses: Iterable[float], now: float, half_life_seconds: float) -> float:
    """The sum of the penalties at ``now``: 1 for each lapse, halved with every half-life since."""
    return math.fsum(0.5 ** (max(0.0, now - at) / half_life_seconds) for at in lapses)


def is_flapping(lapses: Iterable[float], now: float, limit: int, half_life_seconds: float) -> bool:
    """Whether there were at least ``limit`` lapses, in quick enough succession."""
    found = list(lapses)
    return len(found) >= limit and penalty(found, now, half_life_seconds) >= SUPPRESS_SHARE * limit


def quiet_at(lapses: Iterable[float], now: float, limit: int, half_life_seconds: float) -> float:
    """When the penalty will have decayed to the threshold of release, if nothing more happens; ``now`` if it has."""
    left = penalty(lapses, now, half_life_seconds)
    ratio = left / (REUSE_SHARE * limit)
    return now if ratio <= 1.0 else now + half_life_seconds * math.log2(ratio)
