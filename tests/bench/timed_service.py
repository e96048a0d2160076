"""The services of a graph as real processes of one small program (``timed_program.py``), and what they tell.

Of each service the ledger holds the moments at which it was executed, listened, was told to stop, and exited, in its
own words. So the critical path is what the services took under the very load in which the manager started them.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from figures import NotMeasured
from graphs import Graph
from real_world import lasting_port, runs

SOURCE = Path(__file__).with_name("timed_program.py")
PROGRAM = SOURCE.name
PYTHON = (f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}", "-I", "-S")
"""Without what a virtual environment has Python look for at its start."""
LOOK_SECONDS = 0.05
"""Between two looks at the ledgers, which hold the times whenever they are read."""
WITHIN_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a service, in unix seconds; 0 is what has not come."""

    executed: float = 0.0
    listening: float = 0.0
    stopping: float = 0.0
    exited: float = 0.0


def life_of(ledger: str) -> Life:
    """The life that a ledger tells, of the last process in it."""
    lines = [line.split() for line in ledger.splitlines()]
    last = max((n for n, words in enumerate(lines) if words[0] == "executed"), default=0)
    return Life(**{what: float(at) for what, at, _ in lines[last:]})


@dataclass
class TimedServices:
    """The services of one graph, in a folder of their own that also holds the program."""

    graph: Graph
    folder: Path
    ports: dict[str, int] = field(default_factory=dict)

    @classmethod
    def make(cls, graph: Graph, folder: Path) -> TimedServices:
        """Put the program there, and choose the ports. ``close`` them when all is done."""
        folder.mkdir()
        shutil.copy2(SOURCE, folder / PROGRAM)
        services = cls(graph, folder)
        services._keepers = [lasting_port() for _ in graph.services]
        services.ports = {n: k.getsockname()[1] for n, k in zip(graph.services, services._keepers, strict=True)}
        return services

    def __post_init__(self) -> None:
        self._keepers: list[socket.socket] = []

    def command(self, name: str, folder: Path | None = None, python: Sequence[str] = PYTHON) -> tuple[str, ...]:
        """The argument list of a service; ``folder`` is where it sees ours, and ``python`` what runs it."""
        place, timing = folder or self.folder, self.graph.services[name]
        words = (*python, str(place / PROGRAM), str(self.ports[name]), str(timing.ready), str(timing.stop))
        return (*words, str(place / f"{name}.ledger"))

    def probe(self, name: str, folder: Path | None = None) -> tuple[str, ...]:
        """A command that succeeds while the service listens."""
        return (*PYTHON, str((folder or self.folder) / PROGRAM), "--probe", str(self.ports[name]))

    def clear(self) -> None:
        """Forget the last cycle."""
        for ledger in self.folder.glob("*.ledger"):
            ledger.unlink()

    def lives(self) -> dict[str, Life]:
        """What each service tells of its last life."""
        return {name: life_of(ledger.read_text()) for name, ledger in self._ledgers().items() if ledger.exists()}

    def until(self, reached: Callable[[Life], float], within_seconds: float = WITHIN_SECONDS) -> dict[str, Life]:
        """Wait until all services have a moment in their ledgers. Raises NotMeasured if one never comes to it."""
        waiting, deadline = self._ledgers(), time.monotonic() + within_seconds
        while waiting := {
            name: ledger
            for name, ledger in waiting.items()
            if not ledger.exists() or not reached(life_of(ledger.read_text()))
        }:
            if time.monotonic() > deadline:
                first = ", ".join(list(waiting)[:3])
                raise NotMeasured(f"{len(waiting)} services ({first} …) did not get there in {within_seconds:g} s")
            time.sleep(LOOK_SECONDS)
        return self.lives()

    def close(self) -> None:
        """End what still runs, and give back the ports."""
        for ledger in self._ledgers().values():
            for line in ledger.read_text().splitlines() if ledger.exists() else ():
                if runs(pid := int(line.split()[2]), ledger):
                    os.kill(pid, signal.SIGKILL)
        for keeper in self._keepers:
            keeper.close()

    def _ledgers(self) -> dict[str, Path]:
        return {name: self.folder / f"{name}.ledger" for name in self.graph.services}
