"""Every graph under every manager: how close starts and stops come to the critical path."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from cycle import Cycle, Way
from figures import NotMeasured, reason_of
from graphs import GRAPHS, Graph
from timed_service import TimedServices
from under_citadel import under_citadel
from under_compose import under_compose
from under_process_compose import under_process_compose
from under_supervisord import under_supervisord
from under_systemd import under_systemd

OURS = "citadel"
Once = Callable[[], Cycle]

MANAGERS: dict[str, Callable[[TimedServices, str], AbstractContextManager[Once]]] = {
    OURS: under_citadel,
    "systemd": lambda services, _: under_systemd(services),
    "docker-compose": lambda services, _: under_compose(services),
    "supervisord, by depth": lambda services, _: under_supervisord(services, by_depth=True),
    "supervisord": lambda services, _: under_supervisord(services, by_depth=False),
    "process-compose": lambda services, _: under_process_compose(services),
}
LARGE = 100
"""Services from which on a graph is started fewer times."""
HUGE = 500
AIMS = {"chain-20": 1.5, "ai-platform-12": 1.05, "random-100": 1.10}
"""What citadel's start is held to: wall time by critical path."""


@dataclass(frozen=True)
class Row:
    """What one manager did with one graph; ``why`` says why it did nothing."""

    graph: Graph
    manager: str
    cycles: tuple[Cycle, ...] = ()
    load: float = 0.0
    """The machine's load average, of one minute, when it was done."""
    why: str = ""

    def ways(self, way: str) -> list[Way]:
        """All its starts (``start``) or stops (``stop``)."""
        return [getattr(cycle, way) for cycle in self.cycles]

    def efficiency(self, way: str) -> float:
        """The median of wall time by critical path."""
        return statistics.median(way.efficiency for way in self.ways(way))

    def broken_edges(self, way: str) -> int:
        """The most edges that were broken in one of them."""
        return max(way.broken_edges for way in self.ways(way))

    def as_dict(self) -> dict[str, object]:
        """For JSON: medians in seconds."""
        head: dict[str, object] = {
            "graph": self.graph.name,
            "services": len(self.graph.services),
            "edges": len(self.graph.edges),
            "depth": max(self.graph.depths().values()),
            "manager": self.manager,
        }
        if self.why:
            return {**head, "not_measured": self.why}
        return {
            **head,
            "cycles": len(self.cycles),
            "load_average": round(self.load, 1),
            **{way: self._figures(way) for way in ("start", "stop")},
        }

    def _figures(self, way: str) -> dict[str, object]:
        ways = self.ways(way)
        return {
            "wall_seconds": round(statistics.median(w.wall_seconds for w in ways), 3),
            "path_seconds": round(statistics.median(w.path_seconds for w in ways), 3),
            "nominal_path_seconds": round(ways[0].nominal_path_seconds, 3),
            "efficiency": round(self.efficiency(way), 3),
            "efficiencies": [round(w.efficiency, 3) for w in ways],
            "broken_edges": self.broken_edges(way),
        }


def times_of(manager: str, graph: Graph, most: int) -> int:
    """How many cycles: large graphs and slow peers get fewer."""
    if manager not in (OURS, "systemd"):
        return 1
    size = len(graph.services)
    return 1 if size >= HUGE else min(most, 2) if size >= LARGE else most


def measure(names: Iterable[str], managers: Iterable[str], most: int, consul: str, folder: Path) -> list[Row]:
    """Every graph under every manager, one after the other; what cannot be measured is a row that says why."""
    chosen, rows = list(managers), list[Row]()
    for name in names:
        graph = GRAPHS[name]()
        for manager in chosen:
            print(f"bench: {graph.name} under {manager} …", file=sys.stderr, flush=True)
            rows.append(_row(graph, manager, times_of(manager, graph, most), consul, folder))
    return rows


def _row(graph: Graph, manager: str, times: int, consul: str, folder: Path) -> Row:
    try:
        services = TimedServices.make(graph, folder / f"{graph.name}-{manager.replace(', ', '-').replace(' ', '-')}")
        try:
            with MANAGERS[manager](services, consul) as once:
                cycles = tuple(once() for _ in range(times))
        finally:
            services.close()
    except (NotMeasured, AssertionError) as error:  # the harness asserts; the other figures are worth having still
        print(f"bench: {graph.name} under {manager}: {error}", file=sys.stderr, flush=True)
        return Row(graph, manager, why=reason_of(error))
    return Row(graph, manager, cycles, os.getloadavg()[0])
