"""How good a start can be at best: the longest way through the graph, if nothing but the services took time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache


def critical_path(seconds: Mapping[str, float], edges: Iterable[tuple[str, str]]) -> tuple[float, tuple[str, ...]]:
    """The longest way through a graph without cycles, and its services in the order of their start.

    ``seconds`` says how long each service takes until it is ready; an edge is (service, dependency).
    """
    needs: dict[str, list[str]] = {service: [] for service in seconds}
    for service, dependency in edges:
        needs[service].append(dependency)

    @cache
    def longest_to(service: str) -> tuple[float, tuple[str, ...]]:
        before = max((longest_to(dependency) for dependency in needs[service]), default=(0.0, ()))
        return before[0] + seconds[service], (*before[1], service)

    return max((longest_to(service) for service in seconds), default=(0.0, ()))


def efficiency(wall_seconds: float, path_seconds: float) -> float:
    """Wall time by the time of the critical path: 1 is perfect, 2 means that half of the time was ours."""
    return wall_seconds / path_seconds if path_seconds > 0 else float("nan")


def hop_seconds(wall_seconds: float, path_seconds: float, hops: int) -> float:
    """What each service on the critical path cost on top of its own time."""
    return (wall_seconds - path_seconds) / hops if hops else 0.0
