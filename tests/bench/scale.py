"""How citadel grows: 100 to 10,000 instances in five stacks, on one real Consul server that keeps its data on disk.

    bin/scale [--instances N] [--quick] [--json FILE] [--renew]

At each size everything is started in order; then it is measured idle, and while instances die and are recovered. The
orchestrators are processes of their own, one a stack; the node agents are the real ones, as coroutines of one process
(see ``scale_nodes``, and ``scale_client_agent`` for what stands in for their Consul agents). docs/benchmarks.md has the
results, docs/scaling.md what follows from them.
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
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from document import renewed
from scale_fit import Fit, fits
from scale_run import CALM_SECONDS, Churn, Size, running
from scale_site import Site

DOCS = Path(__file__).parents[2] / "docs"
STACKS = 5
SIZES = (100, 300, 1_000, 3_000, 10_000)
QUICK_SIZES = (100, 300)
HOT = 100
"""Growth is measured by the deaths of as many instances at each size, so that nothing but the size differs."""
HOT_RATE = 20.0
CHANGES = 50.0
"""A second: an instance that dies, and one that is there again, are a change each, so half as many die."""
BEYOND = 50.0
"""Deaths a second, for a look past the aim."""


def sizes_up_to(instances: int, quick: bool) -> tuple[int, ...]:
    """The sizes to measure, the last of them ``instances``."""
    return (*(size for size in (QUICK_SIZES if quick else SIZES) if size < instances), instances)


async def measure(instances: int, *, last: bool, quick: bool) -> Size:
    """One size; the last one also idle for long, and with deaths among all instances."""
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        async with running(Site(instances, STACKS), Path(name)) as (site, size):
            await site.idle(size, 3.0 if quick else 60.0 if last else 10.0)
            calm = 1.0 if quick else CALM_SECONDS
            size.churns.append(await site.churn(size, HOT_RATE, 3.0 if quick else 20.0, HOT, calm))
            if last and not quick:
                size.churns.append(await site.churn(size, CHANGES / 2, 60.0, 0, calm))
                size.churns.append(await site.churn(size, BEYOND, 30.0, 0, calm))
            site.weigh(size)
            return size


def table(sizes: Sequence[Size]) -> str:
    """The growth as a table that Markdown understands."""
    head = "| instances | services | nodes | start s | idle % | memory MB | connections | decide p95 ms |"
    head += " reaction p95 ms | leader CPU ms a death | Consul CPU ms a death |"
    rows = []
    for size in sizes:
        hot = size.churns[0]
        rows.append(
            f"| {size.instances:,} | {size.services:,} | {size.nodes} | {size.start_seconds:.1f} | {size.idle:.2f} |"
            f" {size.memory:.0f} | {size.connections} | {hot.decide_p95:.1f} | {hot.reaction_p95:.0f} |"
            f" {hot.leader_cpu_ms:.1f} | {hot.consul_cpu_ms:.1f} |"
        )
    return "\n".join([head, "| ---: " * 11 + "|", *rows])


def aims(size: Size) -> str:
    """What the largest size comes to, beside what it should."""
    aimed = size.churns[min(1, len(size.churns) - 1)]
    rows = (
        ("memory of an orchestrator, MB", f"{size.memory:.0f}", "300"),
        ("– of all of them together", f"{size.memory_all:.0f}", ""),
        ("– of one for a stack of nothing", f"{size.empty_memory:.0f}", ""),
        ("an idle orchestrator, % of a core (the worst of them)", f"{size.idle:.2f} ({size.idle_worst:.2f})", "2"),
        ("– one for a stack of nothing", f"{size.empty_idle:.2f}", ""),
        ("idle Consul, % of a core; Raft writes/s", f"{size.idle_consul:.1f}; {size.idle_raft_writes:.1f}", ""),
        (
            f"from a death to the decision, p95 at {2 * aimed.rate:g} changes/s, ms",
            f"{aimed.decision_p95:.0f}",
            "250",
        ),
        ("`decide` p95 then, ms", f"{aimed.decide_p95:.1f}", "30"),
        ("connections of an orchestrator to Consul", f"{size.connections}", "the same for any size"),
    )
    head = f"| {size.instances:,} instances, {size.nodes} nodes, {size.stacks} stacks | measured | aim |\n"
    return head + "| --- | ---: | ---: |\n" + "\n".join(f"| {what} | {found} | {aim} |" for what, found, aim in rows)


CHURNED: tuple[tuple[str, Callable[[Churn], str]], ...] = (
    ("died; not back", lambda churn: f"{churn.deaths}; {churn.left}"),
    ("death to the decision about it, p50 / p95 / p99, ms",
     lambda churn: f"{churn.decision_p50:.0f} / {churn.decision_p95:.0f} / {churn.decision_p99:.0f}"),
    ("– to the order at the node agent",
     lambda churn: f"{churn.reaction_p50:.0f} / {churn.reaction_p95:.0f} / {churn.reaction_p99:.0f}"),
    ("– ready again, p95", lambda churn: f"{churn.ready_p95:.0f}"),
    ("`decide` p50 / p95, ms", lambda churn: f"{churn.decide_p50:.1f} / {churn.decide_p95:.1f}"),
    ("an orchestrator then, Consul then, % of a core", lambda churn: f"{churn.busy:.0f}, {churn.consul_busy:.0f}"),
    ("the process with all node agents, % of a core", lambda churn: f"{churn.nodes_busy:.0f}"),
    ("Raft writes/s; MB/s in and out of Consul",
     lambda churn: f"{churn.raft_writes_per_second:.0f}; {churn.consul_bytes_per_second / 1e6:.1f}"),
)  # fmt: skip


def churn_table(size: Size) -> str:
    """What deaths come to at the largest size, by how many of how many die a second."""
    heads = [
        f"{churn.rate:g}/s of {churn.population or size.instances:,} ({2 * churn.rate:g} changes/s)"
        for churn in size.churns
    ]
    rows = [f"| {what} | {' | '.join(told(churn) for churn in size.churns)} |" for what, told in CHURNED]
    return "\n".join([f"| deaths | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads), *rows])


CURVES: tuple[tuple[str, Callable[[Size], float]], ...] = (
    ("leader CPU for a death (ms)", lambda size: size.churns[0].leader_cpu_ms),
    ("reaction p95 (ms)", lambda size: size.churns[0].reaction_p95),
    ("decide p50 (ms)", lambda size: size.churns[0].decide_p50),
)


def fitted(sizes: Sequence[Size]) -> dict[str, tuple[Fit, ...]]:
    """The laws of growth over the number of services, the best first; nothing for too few sizes."""
    if len(sizes) < 3:
        return {}
    services = [float(size.services) for size in sizes]
    return {name: fits(services, [max(1e-3, curve(size)) for size in sizes]) for name, curve in CURVES}


def plot(sizes: Sequence[Size], folder: Path) -> None:
    """Draw the growth, with the fits, into ``scale.svg``."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    # The same figures give the same file, and text stays text.
    mpl.rcParams.update({"svg.hashsalt": "scale", "svg.fonttype": "none"})
    services = [float(size.services) for size in sizes]
    laws = fitted(sizes)
    figure, places = pyplot.subplots(1, len(CURVES), figsize=(12, 3.6), layout="constrained")
    fine = [services[0] * (services[-1] / services[0]) ** (step / 60) for step in range(61)]
    for place, (name, curve) in zip(places, CURVES, strict=True):
        place.plot(services, [curve(size) for size in sizes], "o", color="black", label="measured")
        for fit in laws.get(name, ()):
            place.plot(fine, [fit.at(x) for x in fine], linewidth=1, label=f"{fit.law}: {fit}")
        place.set(xscale="log", xlabel="services", title=name)
        place.set_ylim(bottom=0)
        place.legend(fontsize=6)
    figure.savefig(folder / "scale.svg", metadata={"Date": None})


def laws_table(laws: Mapping[str, Sequence[Fit]]) -> str:
    """The laws that fit best, for each curve the best first."""
    rows = [f"| {name} | {'; '.join(f'{fit.law}: {fit}' for fit in found)} |" for name, found in laws.items()]
    return "\n".join(["| growth over n services | least squares, the best first |", "| --- | --- |", *rows])


def report(sizes: Sequence[Size], *, out: Path | None, renew: bool) -> None:
    laws = fitted(sizes)
    tables = {
        "scale": table(sizes),
        "scale_laws": laws_table(laws),
        "scale_aims": aims(sizes[-1]),
        "scale_churn": churn_table(sizes[-1]),
    }
    print(f"\n{HOT} instances die by turns, {HOT_RATE:g}/s in all, whatever the size:")
    for text in tables.values():
        print(f"\n{text}")
    if out is not None:
        machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
        found_laws = {name: [str(fit) for fit in found] for name, found in laws.items()}
        document = {"machine": machine, "sizes": [size.as_dict() for size in sizes], "fits": found_laws}
        out.write_text(json.dumps(document, indent=2) + "\n")
    if renew:
        plot(sizes, DOCS)
        page = DOCS / "benchmarks.md"
        page.write_text(renewed(page.read_text(), tables))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, help="the largest size; 10,000, or 300 with --quick")
    parser.add_argument("--quick", action="store_true", help="under a minute, for a look whether it works")
    parser.add_argument("--json", type=Path, help="write all that was measured here as well")
    parser.add_argument("--renew", action="store_true", help="renew the tables and the plot of docs/benchmarks.md")
    options = parser.parse_args()
    wanted = sizes_up_to(options.instances or (QUICK_SIZES if options.quick else SIZES)[-1], options.quick)
    sizes = []
    for instances in wanted:
        began = time.monotonic()
        sizes.append(asyncio.run(measure(instances, last=instances == wanted[-1], quick=options.quick)))
        print(f"{instances} instances measured in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    report(sizes, out=options.json, renew=options.renew)


if __name__ == "__main__":
    main()
