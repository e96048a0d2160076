"""A start and a stop of a graph: how long they took, what the services themselves took of it, and whether in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from critical_path import critical_path, efficiency
from graphs import Graph
from timed_service import Life

TICK_SECONDS = 0.01
"""The moment of an exec is known no better: what is earlier by less may have been in order."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way, up or down. Wall time is until the manager says that all is done or, if it cannot, until all is."""

    wall_seconds: float
    path_seconds: float
    """The critical path by what the services took themselves, in this very run."""
    nominal_path_seconds: float
    """The same by what they were told to take, so that the load of the machine shows."""
    broken_edges: int
    """Dependents that were started before what they need was ready; or, down, that outlived it."""

    @property
    def efficiency(self) -> float:
        return efficiency(self.wall_seconds, self.path_seconds)


@dataclass(frozen=True, slots=True)
class Cycle:
    """A start, and the stop after it."""

    start: Way
    stop: Way


def started(graph: Graph, lives: Mapping[str, Life], requested: float, told: float | None) -> Way:
    """The way up. ``told`` is when the manager said that everything is ready, None if it never does."""
    own = {name: life.listening - life.executed for name, life in lives.items()}
    return Way(
        wall_seconds=(told or max(life.listening for life in lives.values())) - requested,
        path_seconds=critical_path(own, graph.edges)[0],
        nominal_path_seconds=critical_path({n: t.ready for n, t in graph.services.items()}, graph.edges)[0],
        broken_edges=sum(lives[name].executed < lives[needed].listening - TICK_SECONDS for name, needed in graph.edges),
    )


def stopped(graph: Graph, lives: Mapping[str, Life], requested: float, told: float | None) -> Way:
    """The way down, against the edges."""
    own = {name: life.exited - life.stopping for name, life in lives.items()}
    backwards = [(needed, name) for name, needed in graph.edges]
    return Way(
        wall_seconds=(told or max(life.exited for life in lives.values())) - requested,
        path_seconds=critical_path(own, backwards)[0],
        nominal_path_seconds=critical_path({n: t.stop for n, t in graph.services.items()}, backwards)[0],
        broken_edges=sum(lives[needed].stopping < lives[name].exited for name, needed in graph.edges),
    )
