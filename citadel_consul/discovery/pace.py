"""How long a service usually takes to answer, and from when on an answer is unusually late.

The estimate is that of TCP for its retransmissions (RFC 6298): a smoothed mean, and four times the smoothed deviation
from it. It takes two numbers, follows a service that gets slower within some ten answers, and of answers whose times
are spread exponentially two in a hundred are late by it.
"""

from __future__ import annotations

from typing import Final

FIRST_SECONDS: Final = 0.5
SHORTEST_SECONDS: Final = 0.05
"""Below it, what is late is the client's own event loop, or a collection of garbage somewhere."""

_DEVIATIONS: Final = 4.0
_MEAN_SHARE: Final = 1 / 8
_DEVIATION_SHARE: Final = 1 / 4


class Pace:
    """The pace of one service, all of its instances together: what is slow by itself is to be seen against the others.

    Threads may share it. Two that note an answer at once may lose one of both, which does no harm to an estimate.
    """

    __slots__ = ("_estimate",)

    def __init__(self) -> None:
        self._estimate: tuple[float, float] | None = None

    def note(self, seconds: float) -> None:
        """Count an answer that took ``seconds``, or one that was given up after them."""
        if self._estimate is None:
            self._estimate = (seconds, seconds / 2)
            return
        mean, deviation = self._estimate
        error = seconds - mean
        self._estimate = (mean + _MEAN_SHARE * error, deviation + _DEVIATION_SHARE * (abs(error) - deviation))

    @property
    def patience_seconds(self) -> float:
        """How long to wait for an answer before it is worth asking somebody else as well."""
        if self._estimate is None:
            return FIRST_SECONDS
        mean, deviation = self._estimate
        return max(SHORTEST_SECONDS, mean + _DEVIATIONS * deviation)
