"""Figures of a benchmark: median, 95th percentile and extremes of a series of seconds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


class NotMeasured(Exception):
    """Something cannot be measured here; the text says why."""


def reason_of(error: NotMeasured | AssertionError) -> str:
    """What a table says of it: the first line, where an assertion goes on with logs."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@dataclass(frozen=True, slots=True)
class Figure:
    """What a series of measurements comes to, in milliseconds."""

    name: str
    trials: int
    median_ms: float
    p95_ms: float
    min_ms: float
    max_ms: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least ``share`` of all are not above."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * round(share * 100) // 100))
    return ordered[rank - 1]


def summary(name: str, seconds: Sequence[float]) -> Figure:
    """The figure of a series, which holds at least one measurement."""
    values = [value * 1000 for value in seconds]
    return Figure(
        name=name,
        trials=len(values),
        median_ms=round(statistics.median(values), 1),
        p95_ms=round(percentile(values, 0.95), 1),
        min_ms=round(min(values), 1),
        max_ms=round(max(values), 1),
    )


def figures_table(figures: Sequence[Figure]) -> str:
    """The figures as a table that Markdown understands as well."""
    rows = [f"| {f.name} | {f.trials} | {f.median_ms} | {f.p95_ms} | {f.min_ms} | {f.max_ms} |" for f in figures]
    return "\n".join(
        ["| milliseconds | trials | median | p95 | min | max |", "| --- | ---: | ---: | ---: | ---: | ---: |", *rows]
    )
