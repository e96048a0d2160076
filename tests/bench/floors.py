"""What the steps of a hop take at least, each measured by itself: the bare tools, without citadel's logic."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient

TIMES = 20


@dataclass(frozen=True)
class Floors:
    """Medians, in seconds."""

    kv_write_seconds: float
    kv_watch_seconds: float
    """From before a write until a watch of the key has its answer."""
    visible_seconds: float
    """From before a registration until a watch of the catalog shows it."""

    @property
    def hop_seconds(self) -> float:
        """A hop that consists of one registration and two watched writes."""
        return self.visible_seconds + 2 * self.kv_watch_seconds


async def measure_floors(consul: str) -> Floors:
    """Measure them on the Consul at ``consul``; leaves nothing there."""
    async with ConsulClient(parse_address(consul)) as client:
        write = await _median(lambda n: _write(client, n))
        watch = await _median(lambda n: _watched_write(client, n))
        visible = await _median(lambda n: _visible(client, n))
        await client.kv_delete_prefix("bench-floors/")
    return Floors(write, watch, visible)


async def _median(once: Callable[[int], Awaitable[float]]) -> float:
    return statistics.median([await once(n) for n in range(TIMES)])


async def _write(client: ConsulClient, n: int) -> float:
    began = time.perf_counter()
    await client.kv_put("bench-floors/write", str(n).encode())
    return time.perf_counter() - began


async def _watched_write(client: ConsulClient, n: int) -> float:
    key = "bench-floors/watch"
    await client.kv_put(key, f"{n} before".encode())
    index = (await client.kv_read(key)).index
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(client.kv_read(key, index, 10.0))
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        await client.kv_put(key, f"{n} after".encode())
        await watching
        return time.perf_counter() - began


async def _visible(client: ConsulClient, n: int) -> float:
    name = f"bench-floor-{n}"
    index = (await client.health_service(name)).index
    began = time.perf_counter()
    await client.register_service({"ID": name, "Name": name, "Port": 1, "Check": {"TTL": "1h", "Status": "passing"}})
    while not (found := await client.health_service(name, index=index, wait_seconds=10.0)).value:
        index = found.index
    took = time.perf_counter() - began
    await client.deregister_service(name)
    return took
