"""Clients that send at a fixed rate, as a process: ``python shopper.py ORDER`` until its input ends.

The order is JSON, see :class:`Order`. It says ``ready`` when the service is known, and in the end its record, as JSON.
Requests are sent at fixed times, whether or not earlier ones have been answered, so a stall cannot hide itself. A
process of its own has an interpreter of its own: what else the test does cannot slow it down.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

import httpx
from dns_client import DnsTransport
from record import Record

from citadel_consul.consul.address import parse_address
from citadel_consul.discovery import ConsulTransport, Resolver

LATE_SECONDS = 0.25
MOST_UNDER_WAY = 64
"""More than a second of one client's requests: those that a paused instance holds up are far fewer."""


@dataclass
class Order:
    """``way`` is ``library`` or ``dns``; ``per_second`` are the requests of all ``clients`` together."""

    way: str
    url: str
    consul: str
    dns_port: int
    clients: int
    per_second: float
    methods: list[str]
    deadline_seconds: float

    def text(self) -> str:
        return json.dumps(asdict(self))


async def send_at_rate(
    client: httpx.AsyncClient, method: str, url: str, per_second: float, record: Record, stop: asyncio.Event
) -> None:
    """Send requests until ``stop`` is set, and wait for the last answers.

    What cannot be sent within ``LATE_SECONDS`` of its time, or while ``MOST_UNDER_WAY`` wait for their answers, is
    counted and not made up for: on a machine that has no time for us it would only pile up.
    """

    async def one(late: float) -> None:
        began = time.monotonic()
        try:
            answer = await client.request(method, url)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            now = time.monotonic()
            what = f"{method} sent {late:.3f} s late, after {now - began:.3f} s: {type(error).__name__}: {error}"
            record.failures.append((now, what))
        else:
            record.seconds.append(time.monotonic() - began)
            record.served[answer.text] += 1

    under_way: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:
        due = time.monotonic() + random.random() / per_second
        while not stop.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            late = max(0.0, time.monotonic() - due)
            if late < LATE_SECONDS and len(under_way) < MOST_UNDER_WAY:
                record.late.append(late)
                under_way.add(task := group.create_task(one(late)))
                task.add_done_callback(under_way.discard)
            else:
                record.unsent += 1
            due += 1 / per_second


async def follow(resolver: Resolver, service: str, news: list[tuple[float, list[str]]]) -> None:
    """Note each change of who serves, until cancelled."""
    async for instances in resolver.watch(service):
        news.append((time.monotonic(), [instance.address for instance in instances]))  # noqa: PERF401  # it never ends


def new_client(order: Order) -> tuple[httpx.AsyncClient, Resolver | None]:
    """A client as the library's documentation describes it, with a resolver of its own; or one that asks DNS."""
    if order.way == "dns":
        return httpx.AsyncClient(transport=DnsTransport(("127.0.0.1", order.dns_port)), timeout=30.0), None
    resolver = Resolver(parse_address(order.consul))
    transport = ConsulTransport(resolver, deadline_seconds=order.deadline_seconds)
    return httpx.AsyncClient(transport=transport, timeout=30.0), resolver


async def shop(order: Order, ready: Callable[[], None], until: Callable[[], Awaitable[object]]) -> Record:
    """Send what is ordered, from when the service is known until ``until()`` returns."""
    record, stop = Record(), asyncio.Event()
    opened = [new_client(order) for _ in range(order.clients)]
    try:
        for client, _ in opened:  # also what a first request costs: imports, the first answer of Consul, a connection
            await client.get(order.url)
        ready()
        async with asyncio.TaskGroup() as watching, asyncio.TaskGroup() as group:
            service = httpx.URL(order.url).host.removesuffix(".consul")
            record.news = [[] for _, resolver in opened if resolver is not None]
            following = [
                watching.create_task(follow(resolver, service, news))
                for (_, resolver), news in zip(opened, record.news, strict=False)
                if resolver is not None
            ]
            rate = order.per_second / order.clients / len(order.methods)
            for (client, _), method in itertools.product(opened, order.methods):
                group.create_task(send_at_rate(client, method, order.url, rate, record, stop))
            await until()
            stop.set()
            for task in following:
                task.cancel()
    finally:
        for client, resolver in opened:
            await client.aclose()
            if resolver is not None:
                record.statistics.append(asdict(resolver.statistics))
                await resolver.aclose()
    return record


async def run(order: Order) -> None:
    record = await shop(order, lambda: print("ready", flush=True), lambda: asyncio.to_thread(sys.stdin.read))
    print(json.dumps(record.found()))


if __name__ == "__main__":
    asyncio.run(run(Order(**json.loads(sys.argv[1]))))
