"""What a soak found: which measures grow while things happen, and what is left over when nothing does any more.

Three rules. What citadel bounds by itself (the history, what is remembered of operations) is held against its bound.
Everything else must not grow (see ``trend``). And at rest, in the same state as after the warm-up, there must not be
more of anything that can be counted than there was then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trend import DAY_SECONDS, FEWEST_BLOCKS, Sample, Trend, trend

Census = Mapping[str, float]

MEMORY = re.compile(r": (resident KiB|blocks of memory)$")
BYTES = re.compile(r"^bytes ")
POOLED = re.compile(r": (connections to Consul|sockets|descriptors)$")
POOL_TOLERATED = 3
"""How many connections a pool may have more at one rest than at another: it keeps what it needed a minute ago."""
REST_TOLERATED = 0.10
"""How much more bytes there may be at rest: numbers get longer, and the text of the last failure differs."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What cannot grow past ``most``, and ``why``; with None another measure tells.

    ``at_rest``: there must not be more of it at rest than there was, either.
    """

    pattern: str
    most: float | None
    why: str
    at_rest: bool = False

    def covers(self, measure: str) -> bool:
        return re.fullmatch(self.pattern, measure) is not None


@dataclass(frozen=True, slots=True)
class Row:
    """One measure: its trend (None if it was seen too seldom), its counts at both rests, and what is wrong with it."""

    measure: str
    trend: Trend | None
    before: float | None
    after: float | None
    wrong: str = ""

    def told(self) -> str:
        """The row of the table."""
        figures = ["–", "–", "–"]
        if self.trend is not None:
            hour = 3600.0
            rate = f"{self.trend.whole.rate * hour:+.3g} ± {self.trend.whole.margin * hour:.2g}"
            level = self.trend.level
            share = f"{100 * self.trend.a_day / level:+.1f} %" if level else "0"
            figures = [f"{level:.6g}", rate, share]
        rests = ["–" if value is None else f"{value:g}" for value in (self.before, self.after)]
        return f"| {' | '.join([self.measure, *figures, *rests, self.wrong or 'flat'])} |"


HEAD = (
    "| measure | mean | slope, per hour (99 %) | the weaker slope, per day | at rest before | after | |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | --- |"
)


def judge(
    samples: Sequence[tuple[float, Census]], before: Sequence[Census], after: Sequence[Census], bounds: Sequence[Bound]
) -> list[Row]:
    """A row for each measure. ``samples`` were taken while things happened; ``before`` and ``after`` at both rests."""
    measures = sorted({name for _, census in samples for name in census} | {name for c in after for name in c})
    return [_row(name, samples, least(before, name), least(after, name), bounds) for name in measures]


def least(censuses: Iterable[Census], measure: str) -> float | None:
    """The least of several counts at one rest: what is left over is in all of them, what comes and goes is not."""
    return min((census[measure] for census in censuses if measure in census), default=None)


def _row(
    measure: str,
    samples: Sequence[tuple[float, Census]],
    before: float | None,
    after: float | None,
    bounds: Sequence[Bound],
) -> Row:
    series: list[Sample] = [(at, census[measure]) for at, census in samples if measure in census]
    found = trend(series) if len(series) >= 2 * FEWEST_BLOCKS else None
    bound = next((bound for bound in bounds if bound.covers(measure)), None)
    if bound is not None:
        highest = max([value for _, value in series] + [after or 0.0])
        beyond = bound.most is not None and highest > bound.most
        wrong = [f"**{highest:g} is beyond {bound.most:g}** ({bound.why})"] if beyond else []
        wrong += _left_over(measure, before, after) if bound.at_rest else ()
        return Row(measure, found, before, after, "; ".join(wrong))
    return Row(measure, found, before, after, "; ".join(_wrongs(measure, found, before, after)))


def _wrongs(measure: str, found: Trend | None, before: float | None, after: float | None) -> Iterable[str]:
    if found is not None and found.grows:
        yield f"**grows** by {found.a_day / DAY_SECONDS * 3600:.3g} an hour"
    yield from _left_over(measure, before, after)


def _left_over(measure: str, before: float | None, after: float | None) -> Iterable[str]:
    if after is None or MEMORY.search(measure):
        return
    share = 1 + REST_TOLERATED if BYTES.search(measure) else 1
    allowed = (before or 0.0) * share + (POOL_TOLERATED if POOLED.search(measure) else 0)
    if after > allowed:
        yield f"**left over**: {after - (before or 0.0):g}"
