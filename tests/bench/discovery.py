"""What discovery costs, how soon it sees a change, and what callers notice when instances and Consul die.

    .venv/bin/python tests/bench/discovery.py [--only overhead,change,watches,torment,rolling,outage] [--seconds 60]

Everything is real: a Consul, instances as processes that register themselves, signals. Clients send at fixed times, so
a stall cannot hide; the same traffic over plain DNS lookups (SRV, answers kept for a second) goes on beside it, at a
tenth of the rate. ``overhead`` asks one server with and without the library in turn, within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "discovery")]

import httpx
from consul_process import ConsulProcess
from figures import percentile
from fleet import Fleet, fleet
from record import Record
from tiny_server import TinyServer, register, set_status
from traffic import traffic

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.binary import find_consul
from citadel_consul.discovery import ConsulTransport, Resolver

PROCESSES = 8
DNS_PROCESSES = 2
Figures = dict[str, Any]


async def overhead(server: ConsulProcess, options: argparse.Namespace) -> Figures:
    """One request at a time to one server, plain and through the library in turn."""
    async with TinyServer("bench").listening() as web, Resolver(parse_address(server.address)) as resolver:
        register(server, "bench", web.port)
        plain = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport())
        found = httpx.AsyncClient(transport=ConsulTransport(resolver))
        ways = {"plain": (plain, f"http://127.0.0.1:{web.port}/"), "library": (found, "http://bench.consul/")}
        taken: dict[str, list[float]] = {name: [] for name in ways}
        async with plain, found:
            for turn in range(options.requests + 200):
                for name, (client, url) in ways.items():
                    began = time.perf_counter()
                    await client.get(f"{url}?{turn}" if options.distinct else url)
                    if turn >= 200:  # warm by then
                        taken[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    more = medians["library"] - medians["plain"]
    return {
        "requests": options.requests,
        "plain_median_us": round(medians["plain"] * 1e6),
        "library_median_us": round(medians["library"] * 1e6),
        "overhead_us": round(more * 1e6),
        "overhead_percent": round(100 * more / medians["plain"], 1),
    }


async def change(server: ConsulProcess, options: argparse.Namespace) -> Figures:
    """From the call that changes a check to the choice that goes by it."""
    taken = []
    register(server, "change", 1)
    register(server, "change", 2)
    async with Resolver(parse_address(server.address)) as resolver:
        changes = resolver.watch("change")
        await anext(changes)
        for turn in range(options.trials):
            await asyncio.sleep(0.02)
            status = "critical" if turn % 2 == 0 else "passing"
            began = time.perf_counter()
            await asyncio.gather(asyncio.to_thread(set_status, server, "change", 1, status), anext(changes))
            taken.append((time.perf_counter() - began) * 1000)
        await changes.aclose()
    return {
        "trials": options.trials,
        "median_ms": round(statistics.median(taken), 1),
        "p95_ms": round(percentile(taken, 0.95), 1),
        "max_ms": round(max(taken), 1),
    }


async def watches(server: ConsulProcess, options: argparse.Namespace) -> Figures:
    """Two hundred services watched by one process: its threads, its connections, its time while nothing happens."""
    threads = threading.active_count()
    for number in range(options.services):
        register(server, f"many-{number}", 1000 + number)
    async with Resolver(parse_address(server.address)) as resolver:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(options.services):
                group.create_task(resolver.instances(f"many-{number}"))
        known = time.perf_counter() - began
        await asyncio.sleep(1.0)
        used, wall = time.process_time(), time.monotonic()
        await asyncio.sleep(options.seconds)
        share = (time.process_time() - used) / (time.monotonic() - wall)
        return {
            "services": options.services,
            "all_known_after_ms": round(1000 * known),
            "threads_more": threading.active_count() - threads,
            "connections": connections_to(server.port),
            "idle_cpu_percent_of_a_core": round(100 * share, 2),
        }


async def torment(server: ConsulProcess, options: argparse.Namespace) -> Figures:
    """Kills, pauses, drains, newcomers and moves, one every two seconds."""
    return await under_traffic(server, options, lambda instances: instances.torment(options.seconds))


async def rolling(server: ConsulProcess, options: argparse.Namespace) -> Figures:
    """A rolling restart, also under requests that must not be repeated."""
    return await under_traffic(server, options, lambda instances: instances.restart_each(), ("GET", "POST"))


async def outage(server: ConsulProcess, options: argparse.Namespace) -> Figures:
    """Consul is killed for half of the time, and comes back without its memory; an instance moves meanwhile."""
    back: list[float] = []
    up: set[str] = set()

    async def strike(instances: Fleet) -> None:
        await asyncio.sleep(options.seconds / 4)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(options.seconds / 4)
        await instances.replace_unseen()
        await asyncio.sleep(options.seconds / 4)
        await asyncio.to_thread(server.start)
        back.append(time.monotonic())
        await asyncio.sleep(options.seconds / 4)
        up.update(f"127.0.0.1:{one.port}" for one in instances.up)

    record = Record()
    figures = await under_traffic(server, options, strike, record=record)
    return {
        **figures,
        "consul_gone_s": options.seconds / 2,
        "converged_after_s": round(record.converged(up, back[0]), 2),
        "reconnects_of_a_watch": max(max(one["reconnects"].values()) for one in record.statistics),
        "connections_of_a_client": max(one["connections"] for one in record.statistics),
    }


async def under_traffic(
    server: ConsulProcess,
    options: argparse.Namespace,
    strike: Callable[[Fleet], Awaitable[None]],
    methods: tuple[str, ...] = ("GET",),
    record: Record | None = None,
) -> Figures:
    """What callers noticed while ``strike`` had its way, by the library and by DNS."""
    record, by_dns = record or Record(), Record()
    async with (
        fleet(server, record) as instances,
        traffic(server, record, options.rate, processes=PROCESSES, methods=methods),
        traffic(server, by_dns, options.dns_rate, way="dns", processes=DNS_PROCESSES, methods=methods),
    ):
        await asyncio.sleep(1.0)
        await strike(instances)
        await asyncio.sleep(1.0)
    if options.verbose:
        print(record.report)
    return {
        **{f"library_{key}": value for key, value in noticed(record).items()},
        **{f"dns_{key}": value for key, value in noticed(by_dns).items()},
        "instances": len(record.served),
    }


def noticed(record: Record) -> Figures:
    answered = len(record.seconds)
    return {
        "requests": answered + len(record.failures),
        "unsent": record.unsent,
        "failures": len(record.failures),
        "median_ms": round(1000 * statistics.median(record.seconds), 1),
        "p99_ms": round(1000 * percentile(record.seconds, 0.99), 1),
        "max_ms": round(1000 * max(record.seconds)),
    }


def connections_to(port: int) -> int:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


CASES = {
    "overhead": overhead,
    "change": change,
    "watches": watches,
    "torment": torment,
    "rolling": rolling,
    "outage": outage,
}


def run(options: argparse.Namespace) -> dict[str, Figures]:
    binary, found = find_consul(), {}
    wanted = [name for name in options.only.split(",") if name] or list(CASES)
    for name in wanted:
        with tempfile.TemporaryDirectory() as folder:
            server = ConsulProcess(binary, Path(folder))
            server.start()
            try:
                found[name] = asyncio.run(CASES[name](server, options))
            finally:
                server.end()
        print(f"\n{name}: {CASES[name].__doc__}")
        for key, value in found[name].items():
            print(f"  {key:<28} {value}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"cases, separated by commas: {', '.join(CASES)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a case with traffic goes on")
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second, all clients together")
    parser.add_argument("--dns-rate", type=float, default=50.0, help="the same, of the clients that ask DNS")
    parser.add_argument("--requests", type=int, default=3000, help="of each kind, to measure the overhead")
    parser.add_argument("--distinct", action="store_true", help="measure the overhead with a new URL each time")
    parser.add_argument("--trials", type=int, default=200, help="changes, to measure how soon they are seen")
    parser.add_argument("--services", type=int, default=200, help="how many services one process watches")
    parser.add_argument("--verbose", action="store_true", help="print what happened when")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    figures = run(options)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
