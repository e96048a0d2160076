"""How fast is the event-driven start? ``.venv/bin/python tests/bench/startup_chain.py [--json FILE]``

Two stacks of trivial services, started by real roles (an orchestrator and a node agent as processes of their own) on a
real Consul server that keeps its data on disk:

* a chain of 20, each ready 50 ms after its exec: what does a hop cost, from 'ready' to the exec of the next one?
* 12 services of which one takes 3 s: does anything wait that does not depend on it?

Times are compared with the critical path, and with floors measured in the same minutes on the same machine, because
the absolute numbers of a loaded machine mean little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "bench"), str(ROOT / "tests" / "system"), str(ROOT / "tests")]

from critical_path import critical_path, efficiency, hop_seconds
from floors import Floors, measure_floors
from real_world import World, free_port

from citadel_consul.consul.binary import find_consul
from citadel_consul.consul.embedded import EmbeddedConsul
from citadel_consul.consul.ports import free_ports
from citadel_consul.core.model import Check, CheckKind, ProcessBackend, ServiceSpec
from citadel_consul.core.operation import Kind, OperationState

SERVICE = Path(__file__).with_name("timed_service.py")
READY_SECONDS = 0.05
CHAIN = 20
SLOW_SECONDS = 3.0
BUDGET_SECONDS = CHAIN * (READY_SECONDS + 0.05)
Edges = list[tuple[str, str]]


@dataclass
class Start:
    """One startup, in seconds.

    Of each service, counted from the beginning: when it was executed, when it listened, when its node agent said that
    it is ready, and when the leader had taken that in. ``own`` is what the service itself took.
    """

    wall: float
    executed: dict[str, float]
    listening: dict[str, float]
    announced: dict[str, float]
    decided: dict[str, float]
    own: dict[str, float]
    path: float
    nominal: float
    hops: int

    @property
    def efficiency(self) -> float:
        """Against what the services really took."""
        return efficiency(self.wall, self.path)

    @property
    def hop(self) -> float:
        return hop_seconds(self.wall, self.path, self.hops)


@dataclass
class Bench:
    """A stack in a world of its own, started and stopped again and again."""

    world: World
    edges: Edges = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, needs: Iterable[str] = (), seconds: float = READY_SECONDS) -> None:
        self.seconds[name] = seconds
        self.edges += [(name, dependency) for dependency in needs]

    def apply(self) -> None:
        self.world.apply([self._spec(name) for name in self.seconds], self.edges)

    def start(self) -> Start:
        """Start everything once, and stop it again."""
        for name in self.seconds:
            self._ledger(name).unlink(missing_ok=True)
        operation = self.world.operate(Kind.STARTUP, within=120.0)
        if operation.state is not OperationState.SUCCEEDED:
            sys.exit(f"the startup {operation.state}: {operation.detail}\n{self.world.logs()}")
        if self.world.operate(Kind.SHUTDOWN, within=120.0).state is not OperationState.SUCCEEDED:
            sys.exit(f"the shutdown failed\n{self.world.logs()}")
        zero = operation.started_at or 0.0
        executed = {step.service: (step.executed_at or 0.0) - zero for step in operation.steps}
        listening = {name: float(self._ledger(name).read_text()) - zero for name in self.seconds}
        own = {name: listening[name] - executed[name] for name in self.seconds}
        path, services = critical_path(own, self.edges)
        # Oldest first, so the last word of each service counts.
        announced = {entry.service: entry.at - zero for entry in self.world.chronicle() if entry.what == "ready"}
        return Start(
            wall=(operation.ended_at or 0.0) - zero,
            executed=executed,
            listening=listening,
            announced=announced,
            decided={step.service: (step.ended_at or 0.0) - zero for step in operation.steps},
            own=own,
            path=path,
            nominal=critical_path(self.seconds, self.edges)[0],
            hops=len(services),
        )

    def _ledger(self, name: str) -> Path:
        return self.world.folder / f"{self.world.stack}-{name}.ready"

    def _spec(self, name: str) -> ServiceSpec:
        port = self.world.ports.setdefault(name, free_port())
        command = (
            *(sys.executable, "-I", "-S", str(SERVICE)),
            *(str(port), str(self.seconds[name]), str(self._ledger(name))),
        )
        return ServiceSpec(
            name=name,
            type="bench",
            nodes=("n1",),
            backend=ProcessBackend(command=command),
            endpoint=f"tcp://127.0.0.1:{port}",
            checks=(Check("tcp", CheckKind.TCP, f"127.0.0.1:{port}"),),
        )


def chain(world: World, length: int) -> Bench:
    """``s00 ← s01 ← …``"""
    bench = Bench(world)
    for n in range(length):
        bench.add(f"s{n:02}", [f"s{n - 1:02}"] if n else [])
    return bench


def one_slow(world: World) -> Bench:
    """Twelve services: one takes 3 s and has two dependents, which have one; nine have nothing to do with it."""
    bench = Bench(world)
    bench.add("slow", seconds=SLOW_SECONDS)
    bench.add("on-slow-1", ["slow", "free-0"])
    bench.add("on-slow-2", ["on-slow-1", "free-8"])
    for n in range(9):
        bench.add(f"free-{n}", [f"free-{n - 1}"] if n % 3 else [])
    return bench


def run(bench: Bench, times: int) -> list[Start]:
    """Bring up the roles, and start the stack ``times`` times; the first start, which warms up, does not count."""
    world = bench.world
    bench.apply()
    world.orchestrator()
    world.agent()
    world.until_led()
    world.until(lambda: world.snapshot().agents, what="an agent")
    return [bench.start() for _ in range(times + 1)][1:]


async def measure(times: int, folder: Path) -> dict[str, Any]:
    """All of it, on one Consul."""
    binary = find_consul(report=lambda line: print(line, file=sys.stderr))
    async with EmbeddedConsul(folder / "consul", binary, ports=free_ports()) as consul:
        before = os.getloadavg()[0]
        floors = await measure_floors(consul.address, SERVICE, READY_SECONDS, folder)
        results = {}
        for name, make in (("chain", lambda w: chain(w, CHAIN)), ("one_slow", one_slow)):
            place = folder / name
            place.mkdir()
            with World(consul.address, place, f"bench-{name.replace('_', '-')}", dict(os.environ)) as world:
                results[name] = await asyncio.to_thread(run, make(world), times)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "consul": binary.version}
    return report(results["chain"], results["one_slow"], floors, {**machine, "load_before": before})


def report(chains: list[Start], slows: list[Start], floors: Floors, machine: dict[str, object]) -> dict[str, Any]:
    """The numbers, by name; of several starts the median."""
    walls = [start.wall for start in chains]
    dependents = {"on-slow-1", "on-slow-2"}
    free = [max(s.decided[n] for n in s.decided if n not in dependents | {"slow"}) for s in slows]
    waited = [s.executed["on-slow-1"] - s.listening["slow"] for s in slows]
    return {
        "machine": machine,
        "floors": {**asdict(floors), "hop_seconds": floors.hop_seconds},
        "chain": {
            "services": CHAIN,
            "starts": len(chains),
            "wall_seconds": statistics.median(walls),
            "wall_seconds_all": walls,
            "budget_seconds": BUDGET_SECONDS,
            "within_budget": statistics.median(walls) <= BUDGET_SECONDS,
            "critical_path_seconds": statistics.median(s.path for s in chains),
            "nominal_path_seconds": chains[0].nominal,
            "efficiency": statistics.median(s.efficiency for s in chains),
            "hop_seconds": statistics.median(s.hop for s in chains),
            "stages_seconds": stages(chains),
        },
        "one_slow": {
            "services": len(slows[0].own),
            "starts": len(slows),
            "wall_seconds": statistics.median(s.wall for s in slows),
            "critical_path_seconds": statistics.median(s.path for s in slows),
            "efficiency": statistics.median(s.efficiency for s in slows),
            "independent_ready_seconds": statistics.median(free),
            "dependent_after_slow_seconds": statistics.median(waited),
        },
    }


def stages(chains: list[Start]) -> dict[str, float]:
    """Where a hop goes, of all hops the median: from one service listening to the exec of the next."""
    hops = [(s, f"s{n:02}", f"s{n + 1:02}") for s in chains for n in range(CHAIN - 1)]
    return {
        "listening_to_announced": statistics.median(s.announced[a] - s.listening[a] for s, a, _ in hops),
        "announced_to_decided": statistics.median(s.decided[a] - s.announced[a] for s, a, _ in hops),
        "decided_to_executed": statistics.median(s.executed[b] - s.decided[a] for s, a, b in hops),
    }


def table(result: dict[str, dict[str, Any]]) -> str:
    """The same for people."""
    chain_, slow, floors = result["chain"], result["one_slow"], result["floors"]
    rows = [
        ("chain of 20, each ready 50 ms after its exec", ""),
        ("  wall, median (budget 20 × 100 ms = 2 s)", f"{chain_['wall_seconds']:.2f} s"),
        ("  critical path, as the services took it", f"{chain_['critical_path_seconds']:.2f} s"),
        ("  efficiency: wall ÷ critical path", f"{chain_['efficiency']:.2f}"),
        ("  cost of a hop", f"{chain_['hop_seconds'] * 1000:.1f} ms"),
        *((f"    {name.replace('_', ' ')}", _ms(seconds)) for name, seconds in chain_["stages_seconds"].items()),
        ("12 services, one takes 3 s", ""),
        ("  wall, median", f"{slow['wall_seconds']:.2f} s"),
        ("  efficiency", f"{slow['efficiency']:.2f}"),
        ("  the nine that do not depend on it are ready after", f"{slow['independent_ready_seconds']:.2f} s"),
        ("  its dependent is executed, after it listens, within", _ms(slow["dependent_after_slow_seconds"])),
        ("floors on this machine, at this load", ""),
        ("  exec to first accepted connection", _ms(floors["service_seconds"])),
        ("  a KV write", _ms(floors["kv_write_seconds"])),
        ("  a KV write until a watch of the key answers", _ms(floors["kv_watch_seconds"])),
        ("  a registration until the catalog shows it", _ms(floors["visible_seconds"])),
        ("  a hop that does nothing but these", _ms(floors["hop_seconds"])),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in rows)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="how many starts of each stack (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="citadel-bench-") as folder:
        result = asyncio.run(measure(arguments.times, Path(folder)))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
