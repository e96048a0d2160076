"""How long nobody leads: from a fault of the leader to its successor's first fenced write.

    .venv/bin/python tests/bench/failover.py [--trials 50] [--services 0] [--only kill,stop1s,stop2s,term,lock]

Everything is real: a Consul, two orchestrators as processes of their own, a signal. The clock runs from just before the
signal until a blocking query of this program sees the event that the successor writes, under the fence and after it
has read the whole stack. `consul lock` is measured in the same run: from SIGKILL of its holder to the first line of
the command that the next holder starts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "system")]

from consul_process import ConsulProcess
from figures import Figure, print_table, summary
from real_world import Process, World

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.binary import find_consul
from citadel_consul.consul.client import ConsulClient
from citadel_consul.orchestrator.handover import SERVICE_NAME
from citadel_consul.store import documents
from citadel_consul.store.keys import Keys

SETTLE_SECONDS = 0.5
LOCK_TRIALS = 3


async def next_leader(client: ConsulClient, keys: Keys, known: frozenset[str]) -> frozenset[str]:
    """Wait for an event that says 'leader-elected' and is not among ``known``; returns all event keys then."""
    index: int | None = None
    while True:
        listing = await client.kv_list(keys.events, index, 30.0)
        index = listing.index
        for entry in listing.value:
            if entry.key not in known and documents.EVENT.decode(entry.value, id="").kind == "leader-elected":
                return frozenset(e.key for e in listing.value)


class Pair:
    """A leader and a standby, renewed after each trial."""

    def __init__(self, world: World, ttl: str) -> None:
        self._world = world
        self._ttl = ttl
        self._count = 0
        self.leader = self._start()
        world.until_led(30)
        self.standby = self._start()

    def _start(self) -> Process:
        self._count += 1
        return self._world.orchestrator(f"o{self._count}", CITADEL_LEADER_CHECK_TTL=self._ttl)

    def succeed(self) -> None:
        """The standby leads now: give it a standby of its own."""
        self.leader.resume()
        self.leader.kill()
        self.leader, self.standby = self.standby, self._start()

    async def until_standing_by(self, client: ConsulClient) -> None:
        port, index = int(self.standby.api.rpartition(":")[2]), None
        while True:
            found = await client.health_service(SERVICE_NAME, passing=True, index=index, wait_seconds=5.0)
            if any(entry.service.port == port for entry in found.value):
                break
            index = found.index
        await asyncio.sleep(SETTLE_SECONDS)


async def measure(world: World, pair: Pair, number: signal.Signals, trials: int) -> list[float]:
    """Seconds for each trial of sending ``number`` to the leader."""
    keys, taken = Keys(world.stack), []
    async with ConsulClient(parse_address(world.consul)) as client:
        for _ in range(trials):
            await pair.until_standing_by(client)
            known = frozenset(e.key for e in (await client.kv_list(keys.events)).value)
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(next_leader(client, keys, known))
                await asyncio.sleep(0.05)
                began = time.perf_counter()
                pair.leader.popen.send_signal(number)
                await waiting
                taken.append(time.perf_counter() - began)
            pair.succeed()
    return taken


def measure_consul_lock(binary: Path, consul: str, folder: Path) -> float:
    """Seconds from SIGKILL of a holder of ``consul lock`` to the start of the next holder's command."""
    environ = {**os.environ, "CONSUL_HTTP_ADDR": consul}

    def holder(name: str) -> subprocess.Popen[bytes]:
        command = [
            str(binary),
            "lock",
            "-child-exit-code",
            "bench/lock",
            f"date +%s.%N > {folder}/{name}; exec sleep 600",
        ]
        return subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def began(name: str) -> float:
        while not (folder / name).exists() or not (folder / name).read_text().strip():
            time.sleep(0.005)
        return float((folder / name).read_text())

    first = holder("first")
    began("first")
    second = holder("second")
    time.sleep(1.0)
    killed = time.time()
    first.kill()
    first.wait()
    seconds = began("second") - killed
    second.terminate()
    second.wait()
    for name in ("first", "second"):
        (folder / name).unlink()
    return seconds


def run(trials: int, services: int, only: frozenset[str]) -> list[Figure]:
    cases = {
        "kill": ("kill -9, default 2 s TTL", signal.SIGKILL, "2s"),
        "term": ("SIGTERM", signal.SIGTERM, "2s"),
        "stop1s": ("SIGSTOP, 1 s TTL", signal.SIGSTOP, "1s"),
        "stop2s": ("SIGSTOP, default 2 s TTL", signal.SIGSTOP, "2s"),
    }
    figures = []
    binary = find_consul()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = ConsulProcess(binary, folder)
        server.start()
        try:
            for case, (label, number, ttl) in cases.items():
                if only and case not in only:
                    continue
                place = folder / case
                place.mkdir()
                with World(server.address, place, f"bench-{case}", dict(os.environ)) as world:
                    if services:
                        world.apply([world.tiny(f"s{n}") for n in range(services)], [])
                    seconds = asyncio.run(measure(world, Pair(world, ttl), number, trials))
                figures.append(summary(label, seconds))
            if not only or "lock" in only:
                waits = [measure_consul_lock(binary.path, server.address, folder) for _ in range(LOCK_TRIALS)]
                figures.append(summary("consul lock, kill -9 of its holder", waits))
        finally:
            server.end()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--services", type=int, default=0, help="how many services the stack has")
    parser.add_argument("--only", default="", help="cases, separated by commas")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    figures = run(options.trials, options.services, frozenset(filter(None, options.only.split(","))))
    print_table(f"Failover, {options.services} services in the stack (milliseconds)", figures)
    if options.json is not None:
        options.json.write_text(json.dumps([figure.as_dict() for figure in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
