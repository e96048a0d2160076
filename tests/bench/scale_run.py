"""One size of the scale benchmark: a Consul server, the orchestrators, all node agents, and what they cost."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import orjson
import psutil  # type: ignore[import-untyped]
from figures import percentile
from scale_site import Site

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.binary import find_consul
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.embedded import EmbeddedConsul
from citadel_consul.consul.ports import free_ports
from citadel_consul.core.operation import Kind, OperationState, Options
from citadel_consul.store.applying import read_difference, write_difference
from citadel_consul.store.keys import Keys
from citadel_consul.store.requests import submit, wait_for_end

HERE = Path(__file__).parent
START_SECONDS = 900.0
SETTLE_SECONDS = 3.0
CALM_SECONDS = 13.0
"""An incident closes ten seconds after its service is well again, and that is a part of what it costs."""
EMPTY = "scale-empty"
NODES = "nodes"
NO_BRAKE = {"CITADEL_RECOVERY_BRAKE_SERVICES": "1000000", "CITADEL_RECOVERY_BRAKE_SHARE": "1"}
"""Ten deaths a second are what the brake is there for, and not what is to be measured."""
CONSUL_CONFIG = {"limits": {"http_max_conns_per_client": 8000}, "ui": False}


@dataclass(frozen=True, slots=True)
class Churn:
    """``rate`` deaths a second for ``seconds``, of ``population`` instances (0: all), and what each came to.

    Milliseconds: from a death until its leader had decided what to do (``decision``), until the order to start again
    was at the node agent (``reaction``), of ``decide``, and of CPU for each death, of all leaders and of Consul.
    ``busy`` is the CPU of one orchestrator in percent of a core.
    """

    rate: float
    seconds: float
    population: int
    deaths: int
    missed: int
    left: int
    decision_p50: float
    decision_p95: float
    decision_p99: float
    reaction_p50: float
    reaction_p95: float
    reaction_p99: float
    ready_p95: float
    decide_p50: float
    decide_p95: float
    decisions: int
    leader_cpu_ms: float
    consul_cpu_ms: float
    busy: float
    consul_busy: float
    nodes_busy: float
    raft_writes_per_second: float
    consul_bytes_per_second: float


@dataclass(slots=True)
class Size:
    """What was measured at one size. CPU is in percent of a core, memory in MB."""

    instances: int
    services: int
    nodes: int
    stacks: int
    start_seconds: float = 0.0
    idle: float = 0.0
    idle_worst: float = 0.0
    idle_consul: float = 0.0
    idle_raft_writes: float = 0.0
    memory: float = 0.0
    memory_all: float = 0.0
    memory_consul: float = 0.0
    connections: int = 0
    empty_memory: float = 0.0
    empty_idle: float = 0.0
    churns: list[Churn] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Told(NamedTuple):
    """What a node agent's process tells of one death; seconds after it, from ``ordered`` on (see ``scale_nodes``)."""

    stack: str
    service: str
    node: str
    wall: float
    ordered: float
    executed: float
    ready: float


class Decision(NamedTuple):
    """A look of a leader at its stack: when, how long it took (seconds), and what it ordered to run."""

    stack: str
    at: float
    took: float
    starts: list[tuple[str, str]]


@dataclass(slots=True)
class Reading:
    """What processes and Consul have used up to a moment."""

    at: float
    cpu: dict[str, float]
    raft: int
    bytes: int


class Running:
    """A site at work."""

    def __init__(self, site: Site, consul: EmbeddedConsul, client: ConsulClient, folder: Path) -> None:
        self.site = site
        self.client = client
        self.folder = folder
        self._consul = consul
        self._processes = {"consul": psutil.Process(consul.pid)}
        self._nodes: asyncio.subprocess.Process | None = None

    async def apply(self) -> None:
        for name in self.site.names:
            difference = await read_difference(self.client, self.site.stack(name), prune=False)
            await write_difference(self.client, difference)

    @asynccontextmanager
    async def leaders(self) -> AsyncIterator[None]:
        """An orchestrator for each stack, and one for a stack of nothing."""
        started: list[subprocess.Popen[bytes]] = []
        try:
            for number, name in enumerate((*self.site.names, EMPTY)):
                started.append(self._leader(name, f"o{number}"))
                self._processes[name] = psutil.Process(started[-1].pid)
            yield
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait()

    def _leader(self, name: str, node: str) -> subprocess.Popen[bytes]:
        environ = {
            **os.environ,
            **NO_BRAKE,
            "CONSUL_HTTP_ADDR": self._consul.address,
            "CITADEL_STATE_DIR": str(self.folder / "state"),
        }
        command = [sys.executable, str(HERE / "scale_leader.py"), str(self._record(name)), "orchestrator"]
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [*command, "--stack", name, "--node", node, "--api-bind", "127.0.0.1:0"],
                env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.decisions"

    @asynccontextmanager
    async def nodes(self) -> AsyncIterator[None]:
        """All node agents."""
        arguments = [self._consul.address, str(self.site.instances), str(self.site.stacks)]
        with (self.folder / "nodes.log").open("wb") as log:
            self._nodes = await asyncio.create_subprocess_exec(
                sys.executable, str(HERE / "scale_nodes.py"), *arguments,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, limit=1 << 26,
            )  # fmt: skip
        try:
            self._processes[NODES] = psutil.Process(self._nodes.pid)
            await self._answer()
            yield
        finally:
            self._nodes.kill()
            await self._nodes.wait()

    async def _answer(self) -> dict[str, Any]:
        assert self._nodes is not None
        assert self._nodes.stdout is not None
        line = await self._nodes.stdout.readline()
        if not line:
            raise RuntimeError(f"the node agents ended:\n{(self.folder / 'nodes.log').read_text()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def start(self) -> float:
        """Start all services of all stacks; returns how long that took."""
        began = time.monotonic()
        options = Options(timeout_seconds=START_SECONDS)
        requests = [
            (Keys(name), (await submit(self.client, Keys(name), Kind.STARTUP, ("all",), options, requested_by="b")).id)
            for name in self.site.names
        ]
        for keys, operation in requests:
            ended = await wait_for_end(self.client, keys, operation, timeout_seconds=START_SECONDS)
            if ended.state is not OperationState.SUCCEEDED:
                raise RuntimeError(f"{keys.stack} was not started: {ended.state} {ended.detail}")
        return time.monotonic() - began

    # --- measuring ----------------------------------------------------------------------------------------------

    async def reading(self) -> Reading:
        io = self._processes["consul"].io_counters()
        cpu = {name: sum(process.cpu_times()[:2]) for name, process in self._processes.items()}
        return Reading(time.time(), cpu, await self._raft_index(), io.read_chars + io.write_chars)

    async def _raft_index(self) -> int:
        async with httpx.AsyncClient(trust_env=False) as http:
            stats: Mapping[str, Any] = (await http.get(f"{self._consul.url}/v1/agent/self")).json()["Stats"]
        return int(stats["raft"]["commit_index"])

    async def idle(self, size: Size, seconds: float) -> None:
        """What it costs while nothing happens."""
        before = await self.reading()
        await asyncio.sleep(seconds)
        after = await self.reading()
        took = after.at - before.at
        share = {name: 100.0 * (after.cpu[name] - before.cpu[name]) / took for name in after.cpu}
        own = [share[name] for name in self.site.names]
        size.idle, size.idle_worst, size.idle_consul = sum(own) / len(own), max(own), share["consul"]
        size.idle_raft_writes, size.empty_idle = (after.raft - before.raft) / took, share[EMPTY]

    async def churn(self, size: Size, rate: float, seconds: float, population: int, calm: float) -> Churn:
        """What deaths cost beyond that, up to ``calm`` seconds after the last, and how soon they are answered."""
        assert self._nodes is not None
        assert self._nodes.stdin is not None
        before = await self.reading()
        order = json.dumps({"rate": rate, "seconds": seconds, "population": population})
        self._nodes.stdin.write(order.encode() + b"\n")
        answer = await self._answer()
        busy = await self.reading()
        await asyncio.sleep(calm)
        after = await self.reading()
        told = [Told(*each) for each in answer["told"]]
        took, deaths = busy.at - before.at, max(1, len(told))
        idle_seconds = (size.idle * self.site.stacks / 100.0) * (after.at - before.at)
        leaders = sum(after.cpu[name] - before.cpu[name] for name in self.site.names) - idle_seconds
        consul = after.cpu["consul"] - before.cpu["consul"] - size.idle_consul / 100.0 * (after.at - before.at)
        decisions = self._decisions(before.at, after.at)
        reactions, decided = _milliseconds(each.ordered for each in told), _milliseconds(_decided(told, decisions))
        looks = _milliseconds(decision.took for decision in decisions if decision.at <= busy.at)
        return Churn(
            rate=rate, seconds=seconds, population=population,
            deaths=len(told), missed=answer["missed"], left=answer["left"],
            decision_p50=percentile(decided, 0.5), decision_p95=percentile(decided, 0.95),
            decision_p99=percentile(decided, 0.99),
            reaction_p50=percentile(reactions, 0.5), reaction_p95=percentile(reactions, 0.95),
            reaction_p99=percentile(reactions, 0.99),
            ready_p95=percentile(_milliseconds(each.ready for each in told), 0.95),
            decide_p50=percentile(looks, 0.5), decide_p95=percentile(looks, 0.95), decisions=len(looks),
            leader_cpu_ms=1000.0 * leaders / deaths, consul_cpu_ms=1000.0 * consul / deaths,
            busy=max(100.0 * (busy.cpu[name] - before.cpu[name]) / took for name in self.site.names),
            consul_busy=100.0 * (busy.cpu["consul"] - before.cpu["consul"]) / took,
            nodes_busy=100.0 * (busy.cpu[NODES] - before.cpu[NODES]) / took,
            raft_writes_per_second=(busy.raft - before.raft) / took,
            consul_bytes_per_second=(busy.bytes - before.bytes) / took,
        )  # fmt: skip

    def _decisions(self, begin: float, end: float) -> list[Decision]:
        """The decisions of all leaders between two moments."""
        found = (
            Decision(name, at, took, [(service, node) for service, node in starts])
            for name in self.site.names
            for at, took, starts in map(orjson.loads, self._record(name).read_bytes().splitlines())
        )
        return [decision for decision in found if begin <= decision.at <= end]

    def weigh(self, size: Size) -> None:
        """Memory, and connections to Consul, as they are now: of the largest orchestrator, of all, of Consul."""
        memory = {name: process.memory_info().rss / 1e6 for name, process in self._processes.items()}
        size.memory = max(memory[name] for name in self.site.names)
        size.memory_all = sum(memory[name] for name in self.site.names)
        size.memory_consul, size.empty_memory = memory["consul"], memory[EMPTY]
        port = parse_address(self._consul.address).port
        size.connections = max(
            sum(1 for c in self._processes[name].net_connections() if c.raddr and c.raddr.port == port)
            for name in self.site.names
        )


def _decided(deaths: Iterable[Told], decisions: Iterable[Decision]) -> Iterator[float]:
    """How many seconds each death waited for the decision to start the instance again."""
    moments: dict[tuple[str, str, str], list[float]] = {}
    for decision in decisions:
        for service, node in decision.starts:
            moments.setdefault((decision.stack, service, node), []).append(decision.at)
    for death in deaths:
        later = [at - death.wall for at in moments.get((death.stack, death.service, death.node), ()) if at > death.wall]
        yield min(later, default=float("nan"))


def _milliseconds(seconds: Iterable[float]) -> list[float]:
    """In milliseconds, of those that there were; a series of nothing is told from a quick one."""
    return [1000.0 * value for value in seconds if value == value] or [float("inf")]  # not NaN


@asynccontextmanager
async def running(site: Site, folder: Path) -> AsyncIterator[tuple[Running, Size]]:
    """A site whose services are all up."""
    extra = folder / "consul.json"
    extra.write_text(json.dumps(CONSUL_CONFIG))
    consul = EmbeddedConsul(folder / "consul", find_consul(), ports=free_ports(), ui=False, config_files=[extra])
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(consul)
        client = await stack.enter_async_context(ConsulClient(parse_address(consul.address)))
        found = Running(site, consul, client, folder)
        await found.apply()
        await stack.enter_async_context(found.leaders())
        await stack.enter_async_context(found.nodes())
        services = site.services_per_stack * site.stacks
        size = Size(site.instances, services, site.nodes_per_stack * site.stacks, site.stacks)
        size.start_seconds = await found.start()
        await asyncio.sleep(SETTLE_SECONDS)
        yield found, size
