"""All node agents of the scale benchmark, as coroutines of one process: ``scale_nodes.py CONSUL INSTANCES STACKS``.

The agents are the real ones, on machines without processes (``backends.fake``) and over stand-ins for their Consul
client agents (``scale_client_agent``). Commands come as JSON lines on standard input, and each is answered by one line:
``{"rate": 50, "seconds": 60, "population": 0}`` kills so many instances a second, drawn from a population of so many
(0: from all), waits until all are back, and tells of each death who died when (unix seconds), and after how many
seconds the order to start again had reached the node agent, was carried out, and the instance was ready again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent)]

import uvloop
from scale_client_agent import ClientAgent
from scale_site import Site

from citadel_consul.agent.agent import AgentConfig, NodeAgent
from citadel_consul.agent.chronicle import Chronicle, Entry
from citadel_consul.agent.readiness import Finding, Prober
from citadel_consul.backends.base import Launch
from citadel_consul.backends.fake import FakeBackend, FakeMachine, Life
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.ports import LOOPBACK
from citadel_consul.consul.transport import HttpxTransport
from citadel_consul.core.model import Check, Instance, ServiceSpec
from citadel_consul.rendering.identity import check_id, service_id
from citadel_consul.store.keys import Keys

TTL_SECONDS = 60.0
"""Of the agents' locks: while 10,000 services start, one process does the work of 200 machines, and can be late."""
BACK_SECONDS = 60.0
"""How long what was killed may take to be back after the churn."""


class Willing(Prober):
    """Services that do nothing are ready at once."""

    async def until_ready(self, _: ServiceSpec) -> None:
        await asyncio.sleep(0)

    async def finding_of(self, _: Check) -> Finding | None:
        return None


@dataclass(slots=True)
class Death:
    """What became of one death: moments on the monotonic clock, NaN as long as there is none; ``wall`` is unix time."""

    stack: str
    instance: Instance
    wall: float
    at: float
    ordered_at: float = float("nan")
    executed_at: float = float("nan")

    def told(self, ready_at: float) -> list[Any]:
        """Who, when, and after how many seconds what had happened."""
        after = [moment - self.at for moment in (self.ordered_at, self.executed_at, ready_at)]
        return [self.stack, *self.instance, self.wall, *after]


class Ledger(Chronicle):
    """Tells of starts and readiness, and keeps nothing."""

    def __init__(self, site: LiveSite, stack: str) -> None:
        self._site = site
        self._stack = stack

    def write(self, entry: Entry) -> None:
        if entry.what == "ready":
            self._site.is_ready(self._stack, Instance(entry.service, entry.node))

    def close(self) -> None:
        """Nothing is open."""


class Machine(FakeMachine):
    """Notes when the order for a start had arrived, and when it is carried out."""

    def __init__(self, site: LiveSite, stack: str) -> None:
        super().__init__()
        self._site = site
        self._stack = stack
        self.ordered_at = float("nan")

    def begin(self, launch: Launch) -> Life:
        death = self._site.waiting.get((self._stack, launch.instance))
        if death is not None:
            death.ordered_at, death.executed_at = self.ordered_at, time.monotonic()
        return super().begin(launch)

    def note(self, what: str, life: Life) -> None:
        """A history of hours is of no use here."""


@dataclass
class LiveSite:
    """The nodes, and what is under way on them."""

    site: Site
    machines: dict[tuple[str, str], Machine] = field(default_factory=dict)
    ready: set[tuple[str, Instance]] = field(default_factory=set)
    waiting: dict[tuple[str, Instance], Death] = field(default_factory=dict)
    done: list[tuple[Death, float]] = field(default_factory=list)
    busy: dict[tuple[str, str], int] = field(default_factory=dict)
    neighbours: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        for name in self.site.names:
            near: dict[str, set[str]] = {}
            for edge in self.site.stack(name).edges:
                near.setdefault(edge.service, set()).add(edge.dependency)
                near.setdefault(edge.dependency, set()).add(edge.service)
            self.neighbours.update(((name, service), frozenset(others)) for service, others in near.items())

    def is_ready(self, stack: str, instance: Instance) -> None:
        self.ready.add((stack, instance))
        death = self.waiting.pop((stack, instance), None)
        if death is not None:
            self.done.append((death, time.monotonic()))
            self._news.set()
            for service in self._concerned(stack, instance.service):
                self.busy[stack, service] -= 1

    def is_free(self, stack: str, instance: Instance) -> bool:
        """Whether it runs, and neither its service nor one that it depends on, or that depends on it, is being
        recovered: what waits for another's recovery waits by design."""
        return (stack, instance) in self.ready and not self.busy.get((stack, instance.service))

    def kill(self, stack: str, instance: Instance) -> None:
        self.ready.discard((stack, instance))
        for service in self._concerned(stack, instance.service):
            self.busy[stack, service] = self.busy.get((stack, service), 0) + 1
        self.waiting[stack, instance] = Death(stack, instance, time.time(), time.monotonic())
        self.machines[stack, instance.node].end(instance)

    async def all_back(self) -> None:
        """Wait until nothing is being recovered."""
        while self.waiting:
            self._news.clear()
            await self._news.wait()

    def _concerned(self, stack: str, service: str) -> Iterator[str]:
        yield service
        yield from self.neighbours.get((stack, service), ())

    def population(self, count: int) -> list[tuple[str, Instance]]:
        """``count`` instances, in equal parts of all stacks, in a random order; all if it is 0."""
        draw, chosen = random.Random(count), []
        for name in self.site.names:
            everything = [i for spec in self.site.stack(name).services.values() for i in spec.instances]
            share = draw.sample(everything, min(len(everything), -(-count // self.site.stacks) or len(everything)))
            chosen += [(name, instance) for instance in share]
        draw.shuffle(chosen)
        return chosen


async def churn(live: LiveSite, rate: float, seconds: float, population: int) -> dict[str, Any]:
    """Kill ``rate`` instances a second for ``seconds``, at fixed times, and wait until all are back."""
    queue, began, missed = deque(live.population(population)), time.monotonic(), 0
    live.done.clear()
    for number in range(round(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        victim = _next_free(live, queue)
        if victim is None:
            missed += 1
        else:
            live.kill(*victim)
    took = time.monotonic() - began
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(BACK_SECONDS):
            await live.all_back()
    left = len(live.waiting)
    return {
        "seconds": took,
        "missed": missed,
        "left": left,
        "told": [death.told(ready_at) for death, ready_at in live.done],
    }


def _next_free(live: LiveSite, queue: deque[tuple[str, Instance]]) -> tuple[str, Instance] | None:
    """The first of the queue that may be killed now; it goes to the end."""
    for place, (stack, instance) in enumerate(queue):
        if live.is_free(stack, instance):
            del queue[place]
            queue.append((stack, instance))
            return stack, instance
    return None


def registration(stack: str, node: str, spec: ServiceSpec, status: str) -> dict[str, Any]:
    identity = service_id(stack, spec.name, node)
    return {
        "ID": identity,
        "Name": spec.name,
        "Address": LOOPBACK,
        "Port": 20_000,
        "Tags": list(spec.tags),
        "Meta": {"citadel-stack": stack, "citadel-node": node},
        "Checks": [
            {"CheckID": check_id(identity, check.name), "Name": check.name, "Status": status} for check in spec.checks
        ],
    }


@asynccontextmanager
async def node_agent(live: LiveSite, consul: str, stack: str, node: str) -> AsyncIterator[NodeAgent]:
    """The node agent of one node."""
    address = parse_address(consul)
    machine = live.machines[stack, node] = Machine(live, stack)
    orders = f"/v1/kv/{Keys(stack).desired_of(node)}"

    def note_orders(path: str) -> None:
        if path == orders:
            machine.ordered_at = time.monotonic()

    front = ClientAgent(address, node, note_orders)
    async with (
        ConsulClient(address, transport=HttpxTransport(address, transport=front)) as client,
        FakeBackend(machine) as backend,
    ):
        config = AgentConfig(
            stack=stack,
            node=node,
            address=LOOPBACK,
            home=f"{node}:/",
            check_ttl_seconds=TTL_SECONDS / 3,
            session_ttl_seconds=TTL_SECONDS,
        )
        try:
            yield NodeAgent(
                client,
                config,
                backend,
                expand=lambda spec: spec,
                render=lambda spec, status: registration(stack, node, spec, status),
                chronicle=Ledger(live, stack),
                make_prober=Willing,
            )
        finally:
            await front.aclose()


async def serve(consul: str, live: LiveSite) -> None:
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        tasks = []
        for name in live.site.names:
            agents = [
                await stack.enter_async_context(node_agent(live, consul, name, node)) for node in live.site.nodes(name)
            ]
            tasks += [group.create_task(agent.run()) for agent in agents]
            for agent in agents:
                await agent.ready.wait()
        gc.collect()
        gc.freeze()  # the heap of 200 agents: a collection of it would stop them all, as it never would 200 processes
        answer: dict[str, Any] = {"agents": len(tasks)}
        while True:
            print(json.dumps(answer), flush=True)
            line = await reader.readline()
            if not line:
                break
            answer = await churn(live, **json.loads(line))
        for task in tasks:
            task.cancel()


def main() -> None:
    consul, instances, stacks = sys.argv[1:]
    # A loop written in C: what stands in for 200 machines should take as little as possible from what is measured.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(consul, LiveSite(Site(int(instances), int(stacks)))))


if __name__ == "__main__":
    main()
