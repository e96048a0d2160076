"""How long nobody leads: from a fault of the leader to its successor's first fenced write.

Everything is real: a Consul, two orchestrators as processes of their own, a signal. The clock runs from just before the
signal until a blocking query of this program sees the event that the successor writes under the fence, while it reads
the stack. The peers are in ``failover_peers``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from figures import Figure, summary
from real_world import Process, World

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.orchestrator.handover import SERVICE_NAME
from citadel_consul.store import documents
from citadel_consul.store.keys import Keys

SETTLE_SECONDS = 0.5


@dataclass(frozen=True)
class Case:
    """A fault of the leader, the size of its stack, and how long a leader may be silent."""

    label: str
    number: signal.Signals
    services: int = 0
    check_ttl: str = "2s"


CASES = {
    "kill": Case("citadel, kill -9", signal.SIGKILL),
    "kill500": Case("citadel, kill -9, 500 services in the stack", signal.SIGKILL, services=500),
    "term": Case("citadel, SIGTERM", signal.SIGTERM),
    "stop1s": Case("citadel, SIGSTOP, 1 s TTL", signal.SIGSTOP, check_ttl="1s"),
    "stop2s": Case("citadel, SIGSTOP, default 2 s TTL", signal.SIGSTOP),
}


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

    def __init__(self, world: World, check_ttl: str) -> None:
        self._world = world
        self._check_ttl = check_ttl
        self._count = 0
        self.leader = self._start()
        world.until_led(30)
        self.standby = self._start()

    def _start(self) -> Process:
        self._count += 1
        return self._world.orchestrator(f"o{self._count}", CITADEL_LEADER_CHECK_TTL=self._check_ttl)

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


def measure_failovers(consul: str, folder: Path, cases: Iterable[str], trials: int) -> list[Figure]:
    """A figure of so many trials for each of ``cases``."""
    return [_measure_case(consul, folder, name, trials) for name in cases]


def _measure_case(consul: str, folder: Path, name: str, trials: int) -> Figure:
    case = CASES[name]
    (place := folder / name).mkdir()
    with World(consul, place, f"bench-{name}", dict(os.environ)) as world:
        if case.services:
            world.apply([world.tiny(f"s{n}") for n in range(case.services)], [])
        return summary(case.label, asyncio.run(measure(world, Pair(world, case.check_ttl), case.number, trials)))
