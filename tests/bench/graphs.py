"""The graphs that are measured: services that take given times to be ready and to stop, and who needs whom."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from citadel_consul.config.stackfile import load_stack

EXAMPLE = Path(__file__).parents[2] / "examples" / "ai-platform" / "stack.yaml"

# Seconds that the example's real services took to be ready and to stop, in one `bin/quickstart --once` on two cores.
PLATFORM_SECONDS = {
    "qdrant": (0.45, 0.34),
    "redis": (0.15, 0.09),
    "postgresql": (0.80, 0.11),
    "embedding-service": (0.60, 0.31),
    "external-model-integrations": (0.55, 0.35),
    "auth-service": (1.00, 0.62),
    "metadata-service": (1.02, 0.31),
    "event-collector": (1.10, 0.47),
    "batch-processor": (1.04, 0.69),
    "request-router": (0.66, 0.53),
    "api-gateway": (0.47, 0.45),
    "dashboard": (0.86, 0.66),
}
READY_MEDIAN_SECONDS, READY_LEAST_SECONDS, READY_MOST_SECONDS, READY_SIGMA = 0.6, 0.2, 3.0, 0.7
STOP_MEDIAN_SECONDS, STOP_LEAST_SECONDS, STOP_MOST_SECONDS = 0.15, 0.02, 1.0
MOST_DEPENDENCIES = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """What a service takes by itself, in seconds."""

    ready: float
    stop: float


@dataclass(frozen=True)
class Graph:
    """Services by name, dependencies before their dependents; an edge is (service, dependency)."""

    name: str
    services: dict[str, Timing]
    edges: tuple[tuple[str, str], ...]

    def needs(self, service: str) -> tuple[str, ...]:
        """What a service depends on."""
        return tuple(dependency for name, dependency in self.edges if name == service)

    def depths(self) -> dict[str, int]:
        """1 for services that need nothing, else one more than the deepest that they need."""
        depths: dict[str, int] = {}
        for service in self.services:
            depths[service] = 1 + max((depths[dependency] for dependency in self.needs(service)), default=0)
        return depths


def chain(length: int = 20, ready: float = 0.05) -> Graph:
    """``s00 ← s01 ← …``"""
    names = [f"s{n:02}" for n in range(length)]
    edges = tuple((names[n], names[n - 1]) for n in range(1, length))
    return Graph(f"chain-{length}", dict.fromkeys(names, Timing(ready, ready)), edges)


def wide(width: int = 40, ready: float = 0.2) -> Graph:
    """One service that all others need, and they nothing else."""
    names = ["base", *(f"s{n:02}" for n in range(width))]
    edges = tuple((name, "base") for name in names[1:])
    return Graph(f"wide-{width + 1}", dict.fromkeys(names, Timing(ready, 0.05)), edges)


def diamond() -> Graph:
    """Two diamonds, one on top of the other, whose sides take unlike times."""
    services = {"base": Timing(0.2, 0.05), "waist": Timing(0.2, 0.05), "top": Timing(0.2, 0.05)}
    edges: list[tuple[str, str]] = []
    for low, high in (("base", "waist"), ("waist", "top")):
        for n in range(6):
            side = f"{low}-{n}"
            services[side] = Timing(0.1 * (n + 1), 0.05 * (n + 1))
            edges += [(side, low), (high, side)]
    order = ["base", *(f"base-{n}" for n in range(6)), "waist", *(f"waist-{n}" for n in range(6)), "top"]
    return Graph("diamond-15", {name: services[name] for name in order}, tuple(edges))


def ai_platform() -> Graph:
    """The example's stack of twelve: its edges, and the times that its services took. Soft edges give the order too."""
    stack = load_stack(EXAMPLE)
    edges = tuple((edge.service, edge.dependency) for edge in stack.edges)
    left, order = list(stack.services), list[str]()
    while left:
        free = [name for name in left if not any(s == name and d in left for s, d in edges)]
        order += free
        left = [name for name in left if name not in free]
    return Graph("ai-platform-12", {name: Timing(*PLATFORM_SECONDS[name]) for name in order}, edges)


def random_graph(size: int, seed: int = 7) -> Graph:
    """Each service needs up to three of those before it; times are log-normal, within bounds. The same for a seed."""
    chance = random.Random(f"{size}/{seed}")

    def drawn(median: float, least: float, most: float) -> float:
        return round(min(most, max(least, median * chance.lognormvariate(0.0, READY_SIGMA))), 3)

    names = [f"r{n:03}" for n in range(size)]
    services = {
        name: Timing(
            drawn(READY_MEDIAN_SECONDS, READY_LEAST_SECONDS, READY_MOST_SECONDS),
            drawn(STOP_MEDIAN_SECONDS, STOP_LEAST_SECONDS, STOP_MOST_SECONDS),
        )
        for name in names
    }
    edges = [
        (names[n], dependency)
        for n in range(1, size)
        for dependency in chance.sample(names[:n], min(n, chance.randint(0, MOST_DEPENDENCIES)))
    ]
    return Graph(f"random-{size}", services, tuple(edges))


GRAPHS: dict[str, Callable[[], Graph]] = {
    "chain": chain,
    "wide": wide,
    "diamond": diamond,
    "stack": ai_platform,
    "random-10": lambda: random_graph(10),
    "random-100": lambda: random_graph(100),
    "random-500": lambda: random_graph(500),
}
"""By the name that ``--graphs`` knows."""
