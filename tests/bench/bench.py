"""All benchmarks, citadel's and those of its peers: `bin/bench [--only start,death,failover] [--quick] [--json FILE]`.

Prints tables that Markdown understands, and writes the figures as JSON. A full run also renews the tables of
docs/benchmarks.md and the plots beside it. What cannot be measured here is said, with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("bench", "system", "managers", ".")]

from death_to_exec import measure_deaths, measure_supervisord, measure_systemd
from document import renewed
from failover import CASES, measure_failovers
from failover_peers import measure_consul_lock, measure_patroni
from figures import Figure, NotMeasured, figures_table, reason_of, summary
from floors import Floors, measure_floors
from graphs import GRAPHS
from peer_environment import peer_program
from start_stop import MANAGERS, OURS, Row, measure
from tables import aims_table, efficiency_table, floors_table, hops_table, reasons

from citadel_consul.consul.binary import ConsulBinary, find_consul
from citadel_consul.consul.embedded import EmbeddedConsul
from citadel_consul.consul.ports import free_ports

DOCS, PAGE = ROOT / "docs", "benchmarks.md"
SECTIONS = ("start", "death", "failover")
DEATH_SERVICES = 12


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often."""

    sections: frozenset[str]
    graphs: Mapping[str, Sequence[str]]
    """The managers of each graph."""
    cycles: int = 3
    deaths: int = 100
    unit_deaths: int = 100
    """Of units of systemd; 0 leaves them out."""
    peer_deaths: int = 10
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
    return Plan(frozenset(SECTIONS), graphs, 2, 15, 0, 3, 5, ("kill",), 0)


def run(plan: Plan, folder: Path) -> Results:
    """Measure what is planned, one thing at a time, on one Consul server that keeps its data on disk.

    In the main thread: an exception that a signal raises there takes down what runs.
    """
    binary, began = find_consul(report=lambda line: print(line, file=sys.stderr)), time.monotonic()
    results = Results(machine=_machine(binary))
    with _consul(folder, binary) as consul:
        if "start" in plan.sections:
            results.floors = asyncio.run(measure_floors(consul))
            _starts(results, plan, consul, folder)
        if "death" in plan.sections:
            _deaths(results, plan, consul, folder)
        if "failover" in plan.sections:
            _failovers(results, plan, consul, binary, folder)
    results.machine |= {"load_average_after": round(os.getloadavg()[0], 1), "seconds": round(time.monotonic() - began)}
    return results


@contextmanager
def _consul(folder: Path, binary: ConsulBinary) -> Iterator[str]:
    """The address of a server that runs for the time of the block."""
    server = EmbeddedConsul(folder / "consul", binary, ports=free_ports())
    with asyncio.Runner() as runner:
        runner.run(server.start())
        try:
            yield server.address
        finally:
            runner.run(server.stop())


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
    if plan.unit_deaths:
        results.attempt("death of a unit of systemd", found, lambda: measure_systemd(services, plan.unit_deaths))
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
        results.missing.append("consul lock and Patroni: left out of a quick run, they take a minute")
        return
    lock, patroni = list[Figure](), list[Figure]()

    def of_lock() -> list[Figure]:
        return [summary("consul lock, kill -9 of its holder", measure_consul_lock(consul, binary.path, folder, trials))]

    def of_patroni() -> list[Figure]:
        return [summary("Patroni, kill -9 of it and its PostgreSQL", measure_patroni(consul, folder, trials))]

    with ThreadPoolExecutor() as pool:  # side by side, since they only wait
        attempts = [
            pool.submit(results.attempt, "failover of consul lock", lock, of_lock),
            pool.submit(results.attempt, "failover of Patroni", patroni, of_patroni),
        ]
    for attempt in attempts:
        attempt.result()
    found += [*lock, *patroni]


def tables_of(results: Results) -> dict[str, str]:
    """Everything as Markdown, by the names that docs/benchmarks.md has for it."""
    tables = {"machine": ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in results.machine.items())}
    if results.rows:
        tables |= {way: efficiency_table(results.rows, way) for way in ("start", "stop")}
        tables |= {"hops": hops_table(results.rows), "aims": aims_table(results.rows)}
    if results.floors:
        tables["floors"] = floors_table(results.floors)
    tables |= {
        name: figures_table(figures)
        for name, figures in (("death", results.deaths), ("failover", results.failovers))
        if figures
    }
    missing = [*filter(None, [reasons(results.rows)]), *(f"- {line}" for line in results.missing)]
    return {**tables, "missing": "\n".join(missing) or "Nothing was left out."}


def chosen(options: argparse.Namespace) -> Plan:
    """The plan that the options ask for."""
    plan = quick_plan() if options.quick else full_plan()
    if options.only:
        plan = replace(plan, sections=frozenset(_names(options.only, SECTIONS)))
    if options.graphs or options.managers:
        names = _names(options.graphs, GRAPHS) if options.graphs else tuple(plan.graphs)
        wanted = _names(options.managers, MANAGERS, separator=";") if options.managers else tuple(MANAGERS)
        plan = replace(plan, graphs=dict.fromkeys(names, wanted))
    if options.trials:
        plan = replace(plan, deaths=options.trials, failovers=options.trials)
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
    parser.add_argument("--trials", type=int, metavar="N", help="deaths and failovers of citadel")
    parser.add_argument("--quick", action="store_true", help="fewer graphs, peers and trials: under two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--docs",
        type=Path,
        metavar="FOLDER",
        help="where tables and plots go (default: of a full run docs, else nowhere)",
    )
    options = parser.parse_args()
    plan = chosen(options)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the shell has those behind an & ignore it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bin/bench: terminated"))
    with tempfile.TemporaryDirectory(prefix="citadel-bench-") as folder:
        results = run(plan, Path(folder))
    tables = tables_of(results)
    print("\n\n".join(f"{name}:\n{table}" for name, table in tables.items()))
    if options.json:
        options.json.write_text(json.dumps(results.as_dict(), indent=2) + "\n")
    whole = not (options.quick or options.only or options.graphs or options.managers)
    docs = options.docs or (DOCS if whole else None)
    if docs is not None:
        from plots import draw  # matplotlib takes half a second to import

        docs.mkdir(exist_ok=True)
        draw(results.rows, results.deaths, results.failovers, docs)
        text = (docs if (docs / PAGE).exists() else DOCS) / PAGE
        (docs / PAGE).write_text(renewed(text.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
