"""Whether a figure that was sampled for a while grows: a least-squares slope with its confidence interval.

Samples of a process that lives through faults are noisy, and neighbours in time resemble one another, which would make
a plain interval too narrow. So the line is fitted through the means of blocks of samples, with Student's t for the few
degrees of freedom that are left.

A leak goes on as long as its cause does; what only warms up (caches, pools, an allocator that keeps what it once got)
slows down. So a figure *grows* if its slope is above zero beyond doubt both over all of the time and over the last half
of it, and if the weaker of the two, continued for a day, would add more than is tolerated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, fmean

DAY_SECONDS = 86_400.0
TOLERATED_SHARE_A_DAY = 0.05
"""What may be added in a day, as a share of what is there."""
CONFIDENCE = 0.99
BLOCKS = 16
FEWEST_BLOCKS = 4

Sample = tuple[float, float]
"""When (seconds), and what was found."""


@dataclass(frozen=True, slots=True)
class Slope:
    """A rate of change in units a second, and half the width of its confidence interval."""

    rate: float
    margin: float

    @property
    def low(self) -> float:
        return self.rate - self.margin

    @property
    def high(self) -> float:
        return self.rate + self.margin


@dataclass(frozen=True, slots=True)
class Trend:
    """How a figure moved: its mean, its slope over all of the time, and over the last half of it."""

    level: float
    whole: Slope
    late: Slope

    @property
    def a_day(self) -> float:
        """What the weaker of both slopes would add in a day."""
        return min(self.whole.rate, self.late.rate) * DAY_SECONDS

    @property
    def grows(self) -> bool:
        beyond_doubt = self.whole.low > 0 and self.late.low > 0
        return beyond_doubt and self.a_day > TOLERATED_SHARE_A_DAY * self.level


def trend(samples: Sequence[Sample]) -> Trend:
    """The trend of ``samples``, in the order of their times. Raises ``ValueError`` if they are too few to tell."""
    return Trend(fmean(value for _, value in samples), slope(samples), slope(samples[len(samples) // 2 :]))


def slope(samples: Sequence[Sample]) -> Slope:
    """The slope of the line through the means of blocks of ``samples``. Raises ``ValueError`` if they are too few."""
    blocks = _blocks(samples)
    count = len(blocks)
    mean_at, mean_value = fmean(at for at, _ in blocks), fmean(value for _, value in blocks)
    spread = sum((at - mean_at) ** 2 for at, _ in blocks)
    if spread == 0:
        raise ValueError("all samples are of one moment")
    rate = sum((at - mean_at) * (value - mean_value) for at, value in blocks) / spread
    left = sum((value - mean_value - rate * (at - mean_at)) ** 2 for at, value in blocks)
    deviation = math.sqrt(left / (count - 2) / spread)
    return Slope(rate, students_t(CONFIDENCE, count - 2) * deviation)


def students_t(confidence: float, freedom: int) -> float:
    """The two-sided quantile of Student's t, exact for 1 and 2 degrees of freedom.

    For more, it is the expansion of Abramowitz and Stegun (26.7.5), which is off by 2 % for 3 degrees and less beyond.
    """
    probability = (1 + confidence) / 2
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        return (2 * probability - 1) * math.sqrt(2 / (4 * probability * (1 - probability)))
    z, n = NormalDist().inv_cdf(probability), float(freedom)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / n**power for power, term in enumerate(terms, 1))


def _blocks(samples: Sequence[Sample]) -> list[Sample]:
    """Means of neighbouring samples: as many blocks as there can be of equal size, at most :data:`BLOCKS`."""
    count = min(BLOCKS, len(samples))
    if count < FEWEST_BLOCKS:
        raise ValueError(f"{len(samples)} samples are too few to tell a trend")
    bounds = [len(samples) * number // count for number in range(count + 1)]
    parts = [samples[first:end] for first, end in pairwise(bounds)]
    return [(fmean(at for at, _ in part), fmean(value for _, value in part)) for part in parts]
