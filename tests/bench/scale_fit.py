"""Which law a growth follows: logarithmic, linear, or a power, each fitted by least squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fit:
    """``law`` with its two parameters. ``r2`` is the share of the variation that it explains (1: all of it)."""

    law: str
    a: float
    b: float
    r2: float

    def at(self, x: float) -> float:
        """What the law says for ``x``."""
        if self.law == "power":
            return float(self.a * x**self.b)
        return self.a + self.b * (math.log(x) if self.law == "logarithmic" else x)

    def __str__(self) -> str:
        text = {
            "logarithmic": f"{self.a:.3g} + {self.b:.3g} ln n",
            "linear": f"{self.a:.3g} + {self.b:.3g} n",
            "power": f"{self.a:.3g} n^{self.b:.3g}",
        }[self.law]
        return f"{text} (R² {self.r2:.2f})"


def fits(xs: Sequence[float], ys: Sequence[float]) -> tuple[Fit, ...]:
    """The three laws fitted to the points (at least two, all positive), the best first."""
    logarithms, powers = [math.log(x) for x in xs], [math.log(y) for y in ys]
    found = [
        _judged("logarithmic", _line(logarithms, ys), xs, ys),
        _judged("linear", _line(xs, ys), xs, ys),
        _judged("power", _line(logarithms, powers), xs, ys),
    ]
    return tuple(sorted(found, key=lambda fit: -fit.r2))


def _line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope of the line with the least squares."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    return mean_y - slope * mean_x, slope


def _judged(law: str, line: tuple[float, float], xs: Sequence[float], ys: Sequence[float]) -> Fit:
    a, b = line
    fit = Fit(law, math.exp(a) if law == "power" else a, b, 0.0)
    mean = sum(ys) / len(ys)
    total = sum((y - mean) ** 2 for y in ys)
    left = sum((y - fit.at(x)) ** 2 for x, y in zip(xs, ys, strict=True))
    return Fit(law, fit.a, b, 1.0 - left / total if total else 1.0)
