"""All benchmarks, citadel's and those of its peers: `bin/bench [--only start,death,failover] [--quick] [--json FILE]`.

Prints tables that Markdown understands, writes the figures as JSON, and draws docs/benchmarks-start.svg,
docs/benchmarks-stop.svg and docs/benchmarks-recovery.svg. What cannot be measured here is said, with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("bench", "system", "managers", ".")]

from death_to_exec import measure_deaths, measure_supervisord, measure_systemd
from failover import CASES, measure_failovers
from failover_peers import measure_consul_lock, measure_patroni
from figures import Figure, NotMeasured, print_table, reason_of, summary
from floors import Floors, measure_floors
from graphs import GRAPHS
from peer_environment import peer_program
from start_stop import MANAGERS, OURS, Row, measure
from tables import aims_table, efficiency_table, floors_table, hops_table, reasons

from citadel_consul.consul.binary import ConsulBinary, find_consul
from citadel_consul.consul.embedded import EmbeddedConsul
from citadel_consul.consul.ports import free_ports

SECTIONS = ("start", "death", "failover")
DEATH_SERVICES = 12


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often."""

    sections: frozenset[str]
    graphs: Mapping[str, Sequence[str]]
    """The managers of each graph."""
    cycles: int = 5
    deaths: int = 100
    peer_deaths: int = 10
    units: bool = True
    """Whether units of systemd are killed as well."""
    failovers: int = 50
    cases: Sequence[str] = tuple(CASES)
    peer_failovers: int = 3
    """Trials of `consul lock` and of Patroni, side by side, since they only wait; 0 leaves both out."""


@dataclass
class Results:
    """What was found."""

    rows: list[Row] = field(default_factory=list)
    floors: Floors | None = None
    deaths: list[Figure] = field(default_factory=list)
    failovers: list[Figure] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What could not be measured, and why."""
    machine: dict[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return {
            "machine": self.machine,
            "floors_seconds": asdict(self.floors) if self.floors else None,
            "starts_and_stops": [row.as_dict() for row in self.rows],
            "death_to_exec_ms": [figure.as_dict() for figure in self.deaths],
            "failover_ms": [figure.as_dict() for figure in self.failovers],
            "not_measured": self.missing,
        }

    def attempt(self, what: str, figures: list[Figure], work: Callable[[], list[Figure]]) -> None:
        """Do a piece of the work; if it cannot be done here, keep the reason."""
        print(f"bench: {what} …", file=sys.stderr, flush=True)
        try:
            figures += work()
        except (NotMeasured, AssertionError) as error:  # the harness asserts; the other figures are worth having still
            print(f"bench: {what}: {error}", file=sys.stderr, flush=True)
            self.missing.append(f"{what}: {reason_of(error)}")


def full_plan() -> Plan:
    return Plan(frozenset(SECTIONS), {name: tuple(MANAGERS) for name in GRAPHS})


def quick_plan() -> Plan:
    """The aims' smaller graphs, with the peers that take seconds."""
    graphs = {"chain": (OURS, "systemd"), "stack": tuple(MANAGERS)}
    return Plan(frozenset(SECTIONS), graphs, 2, 15, 3, False, 5, ("kill",), 0)


async def run(plan: Plan, folder: Path) -> Results:
    """Measure what is planned, one thing at a time, on one Consul server that keeps its data on disk."""
    binary, began = find_consul(report=lambda line: print(line, file=sys.stderr)), time.monotonic()
    results = Results(machine=_machine(binary))
    async with EmbeddedConsul(folder / "consul", binary, ports=free_ports()) as consul:
        if "start" in plan.sections:
            results.floors = await measure_floors(consul.address)
            await asyncio.to_thread(_starts, results, plan, consul.address, folder)
        if "death" in plan.sections:
            await asyncio.to_thread(_deaths, results, plan, consul.address, folder)
        if "failover" in plan.sections:
            await asyncio.to_thread(_failovers, results, plan, consul.address, binary, folder)
    results.machine |= {"load_average_after": round(os.getloadavg()[0], 1), "seconds": round(time.monotonic() - began)}
    return results


def _machine(binary: ConsulBinary) -> dict[str, object]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "consul": binary.version,
        "load_average_before": round(os.getloadavg()[0], 1),
    }


def _starts(results: Results, plan: Plan, consul: str, folder: Path) -> None:
    for name, managers in plan.graphs.items():
        results.rows += measure([name], managers, plan.cycles, consul, folder)


def _deaths(results: Results, plan: Plan, consul: str, folder: Path) -> None:
    found, services = results.deaths, DEATH_SERVICES
    results.attempt(
        "death of a process under citadel",
        found,
        lambda: measure_deaths(consul, folder, "process", services, plan.deaths),
    )
    if plan.units:
        results.attempt("death of a unit of systemd", found, lambda: measure_systemd(services, plan.deaths))
    results.attempt(
        "death of a process under supervisord",
        found,
        lambda: [
            summary(
                "supervisord, autorestart",
                measure_supervisord(peer_program("supervisord"), folder, plan.peer_deaths),
            )
        ],
    )


def _failovers(results: Results, plan: Plan, consul: str, binary: ConsulBinary, folder: Path) -> None:
    found, trials = results.failovers, plan.peer_failovers
    results.attempt("failover of citadel", found, lambda: measure_failovers(consul, folder, plan.cases, plan.failovers))
    if trials == 0:
        results.missing.append("consul lock and Patroni: left out of a quick run, they take a minute each")
        return
    results.attempt(
        "failover of consul lock",
        found,
        lambda: [
            summary("consul lock, kill -9 of its holder", measure_consul_lock(consul, binary.path, folder, trials))
        ],
    )
    results.attempt(
        "failover of Patroni",
        found,
        lambda: [summary("Patroni, ttl 30 s, kill -9 of it and PostgreSQL", measure_patroni(consul, folder, trials))],
    )


def print_results(results: Results) -> None:
    """Everything as Markdown."""
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in results.machine.items()))
    if results.rows:
        for way in ("start", "stop"):
            print(f"\n{efficiency_table(results.rows, way)}")
        print(f"\n{hops_table(results.rows)}\n\n{aims_table(results.rows)}")
    if results.floors:
        print(f"\n{floors_table(results.floors)}")
    for title, figures in (("Death to exec", results.deaths), ("Failover", results.failovers)):
        if figures:
            print_table(f"{title} (milliseconds)", figures)
    missing = "\n".join([*filter(None, [reasons(results.rows)]), *(f"- {line}" for line in results.missing)])
    if missing:
        print(f"\nNot measured:\n{missing}")


def chosen(options: argparse.Namespace) -> Plan:
    """The plan that the options ask for."""
    plan = quick_plan() if options.quick else full_plan()
    if options.only:
        plan = replace(plan, sections=frozenset(_names(options.only, SECTIONS)))
    if options.graphs or options.managers:
        names = _names(options.graphs, GRAPHS) if options.graphs else tuple(plan.graphs)
        wanted = _names(options.managers, MANAGERS, separator=";") if options.managers else tuple(MANAGERS)
        plan = replace(plan, graphs=dict.fromkeys(names, wanted))
    return plan


def _names(text: str, known: Sequence[str] | Mapping[str, object], separator: str = ",") -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(separator) if name.strip())
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"bin/bench: unknown: {', '.join(unknown)}; there are: {'; '.join(known)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bin/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="SECTIONS", help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--graphs", metavar="GRAPHS", help=f"some of {','.join(GRAPHS)}")
    parser.add_argument("--managers", metavar="MANAGERS", help=f"some of {';'.join(MANAGERS)} (separated by ;)")
    parser.add_argument("--quick", action="store_true", help="fewer graphs, peers and trials: under two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="where plots go (default: docs, of a full run)")
    options = parser.parse_args()
    plan = chosen(options)
    with tempfile.TemporaryDirectory(prefix="citadel-bench-") as folder:
        results = asyncio.run(run(plan, Path(folder)))
    print_results(results)
    if options.json:
        options.json.write_text(json.dumps(results.as_dict(), indent=2) + "\n")
    whole = not (options.quick or options.only or options.graphs or options.managers)
    if (plots := options.plots or (ROOT / "docs" if whole else None)) is not None:
        from plots import draw  # matplotlib takes half a second to import

        draw(results.rows, results.deaths, results.failovers, plots)


if __name__ == "__main__":
    main()
