"""Figures: numbers that a service reports of itself in the JSON of its health endpoint.

Which ones, and where they are, is said by the spec (``metrics``: name to dotted path). Those of :data:`COMMON` are
looked for at the top of the JSON in any case. Only numbers count: what is missing, or is no number, is left out and
never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

COMMON = (
    "gpu_utilization",
    "memory_usage_mb",
    "queue_size",
    "processing_rate",
    "request_rate",
    "error_rate",
    "connected_clients",
    "active_connections",
    "database_size_mb",
)
"""The figures that need no mention in a spec: their names are their places."""
RESERVED = frozenset(
    {"status", "response_time_ms", "last_check", "uptime_seconds", "health_score", "detail", "missing", "figures"}
)
"""What citadel itself says of a service, beside its figures: no figure can be called so."""
SHARES = ("_utilization", "_ratio", "_percent", "_percentage", "error_rate")
"""How names of shares end: of these, a service with several instances shows the mean; of all others, the sum."""

LARGEST = 1e300
"""Beyond it sums would become infinite, which JSON cannot say."""

Figures = Mapping[str, float]


def places(metrics: Mapping[str, str]) -> Mapping[str, str]:
    """Where to look for which figure, given the ``metrics`` of a spec."""
    return {**{name: name for name in COMMON}, **metrics}


def figures_in(document: object, metrics: Mapping[str, str]) -> dict[str, float]:
    """The figures in ``document`` (JSON, decoded), given the ``metrics`` of a spec."""
    found = {name: _number(_at(document, path)) for name, path in places(metrics).items()}
    return {name: value for name, value in found.items() if value is not None}


def combined(instances: Iterable[Figures]) -> dict[str, float]:
    """The figures of a service, from those of its instances."""
    gathered: dict[str, list[float]] = {}
    for figures in instances:
        for name, value in figures.items():
            gathered.setdefault(name, []).append(value)
    return {name: _one_for_all(name, values) for name, values in gathered.items()}


def _one_for_all(name: str, values: Sequence[float]) -> float:
    if len(values) == 1:
        return values[0]
    return round(sum(values) / len(values) if name.endswith(SHARES) else sum(values), 6)


def _at(document: object, path: str) -> object:
    """What is at a dotted path; None if there is nothing. A number in it counts in a list."""
    found = document
    for part in path.split("."):
        if isinstance(found, Mapping):
            found = found.get(part)
        elif isinstance(found, list) and part.isascii() and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            return None
    return found


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < LARGEST else None  # NaN is not below anything
