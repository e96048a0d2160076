"""Steady traffic to a service while its instances are killed, paused, drained, added and moved.

Each instance is a process that registers itself; each client has a resolver and connections of its own. The clients
send at fixed times, whether or not earlier requests have been answered, so a stall cannot hide itself.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from consul_process import ConsulProcess, ConsulSpace
from service_processes import ServiceProcess

from citadel_consul.consul.address import parse_address
from citadel_consul.discovery import ConsulTransport, Resolver

SERVICE = "shop"
URL = f"http://{SERVICE}.consul/"
DEADLINE_SECONDS = 5.0
"""Long enough for a busy machine, and its half short enough for a pause to be felt."""

NewClient = Callable[[], httpx.AsyncClient]


@dataclass
class Record:
    """What the callers saw. ``failures`` are (when, what); times are seconds."""

    began: float = field(default_factory=time.monotonic)
    seconds: list[float] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)

    def happened(self, what: str) -> None:
        self.events.append((round(time.monotonic() - self.began, 2), what))

    @property
    def report(self) -> str:
        """Failures beside the events that may explain them."""
        lines = sorted([*self.events, *((when, f"FAILED {what}") for when, what in self.failures)])
        return "\n".join(f"{when:8.2f} {what}" for when, what in lines)


async def send_at_rate(
    client: httpx.AsyncClient, method: str, per_second: float, record: Record, stop: asyncio.Event
) -> None:
    """Send requests until ``stop`` is set, and wait for the last answers."""

    async def one() -> None:
        began = time.monotonic()
        try:
            answer = await client.request(method, URL)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            what = f"{method} after {time.monotonic() - began:.3f} s: {type(error).__name__}: {error}"
            record.failures.append((round(time.monotonic() - record.began, 2), what))
        else:
            record.seconds.append(time.monotonic() - began)
            record.served[answer.text] += 1

    async with asyncio.TaskGroup() as group:
        due = time.monotonic() + random.random() / per_second
        while not stop.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(one())
            due += 1 / per_second


def library_client(consul: ConsulSpace | ConsulProcess) -> httpx.AsyncClient:
    """A client as the library's documentation describes it, with a resolver of its own."""
    resolver = Resolver(parse_address(consul.address))

    class Transport(ConsulTransport):
        async def aclose(self) -> None:
            await super().aclose()
            await resolver.aclose()

    return httpx.AsyncClient(transport=Transport(resolver, deadline_seconds=DEADLINE_SECONDS), timeout=30.0)


@asynccontextmanager
async def traffic(
    new_client: NewClient, clients: int, per_second: float, record: Record, methods: tuple[str, ...] = ("GET",)
) -> AsyncIterator[None]:
    """Have ``clients`` clients send ``per_second`` requests in total for the time of the block."""
    opened, stop = [new_client() for _ in range(clients)], asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            rate = per_second / clients / len(methods)
            for client, method in itertools.product(opened, methods):
                group.create_task(send_at_rate(client, method, rate, record, stop))
            yield
            stop.set()
    finally:
        for client in opened:
            await client.aclose()


class Fleet:
    """The instances of the service, and what befalls them. Two at least are well at any time."""

    def __init__(self, consul: ConsulSpace | ConsulProcess, record: Record, seed: int = 7) -> None:
        self._consul = consul
        self._record = record
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)
        self.up: list[ServiceProcess] = []

    async def start(self, count: int) -> None:
        """Start ``count`` instances, and wait until they pass."""
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._start())

    async def _start(self, instance_id: str | None = None, port: int | None = None) -> ServiceProcess:
        name = instance_id or f"{SERVICE}-{next(self._numbers)}"
        one = ServiceProcess(self._consul, SERVICE, instance_id=name, port=port)
        self.up.append(one)
        await asyncio.to_thread(one.until_passing)
        self._record.happened(f"{name} passes at {one.port}, pid {one.pid}")
        return one

    def _take(self) -> ServiceProcess:
        one = self._random.choice(self.up)
        self.up.remove(one)
        return one

    async def kill(self) -> None:
        one = self._take()
        self._record.happened(f"SIGKILL {one.instance_id} at {one.port}")
        one.signal(signal.SIGKILL)
        one.end()
        await self._start(one.instance_id)

    async def pause(self, seconds: float = 3.0) -> None:
        one = self._random.choice(self.up)
        self._record.happened(f"SIGSTOP {one.instance_id} at {one.port}")
        one.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._record.happened(f"SIGCONT {one.instance_id} at {one.port}")
        one.signal(signal.SIGCONT)

    async def drain(self, one: ServiceProcess | None = None) -> ServiceProcess:
        if one is None:
            one = self._take()
        else:
            self.up.remove(one)
        self._record.happened(f"SIGTERM {one.instance_id} at {one.port}")
        one.signal(signal.SIGTERM)
        await asyncio.to_thread(one.wait)
        self._record.happened(f"{one.instance_id} has gone")
        return one

    async def add(self) -> None:
        await self._start()

    async def replace(self) -> None:
        """Add one and drain another."""
        await self._start()
        await self.drain()

    async def move(self) -> None:
        """The same instance at another address: it is drained, and starts again under its name."""
        one = await self.drain()
        await self._start(one.instance_id)

    async def restart_each(self) -> None:
        """A rolling restart: each instance, when the one before passes again."""
        for one in list(self.up):
            await self.drain(one)
            await self._start(one.instance_id, one.port)

    async def torment(self, seconds: float, every_seconds: float = 2.0) -> None:
        """Have one misfortune after another for ``seconds``, a new one every ``every_seconds``."""
        misfortunes: list[Callable[[], Awaitable[None]]] = [self.kill, self.pause, self.replace, self.move]
        until = time.monotonic() + seconds
        for misfortune in itertools.cycle(misfortunes):
            if time.monotonic() >= until:
                return
            next_at = time.monotonic() + every_seconds
            await misfortune()
            await asyncio.sleep(max(0.0, next_at - time.monotonic()))

    def end(self) -> None:
        for one in self.up:
            one.end()


@asynccontextmanager
async def fleet(consul: ConsulSpace | ConsulProcess, record: Record, count: int = 3) -> AsyncIterator[Fleet]:
    """Instances that pass, ended after the block."""
    found = Fleet(consul, record)
    try:
        await found.start(count)
        yield found
    finally:
        await asyncio.to_thread(found.end)
