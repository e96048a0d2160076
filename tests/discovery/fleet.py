"""Instances of a service, and what befalls them: killed, paused, drained, added and moved."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from consul_process import ConsulProcess, ConsulSpace
from record import Record
from service_processes import ServiceProcess

from citadel_consul.discovery.registration import TTL_SECONDS

SERVICE = "shop"


class Fleet:
    """Each instance is a process that registers itself, with the library's usual TTL: Consul does not see a pause.

    ``up`` are those that serve.

    One at least serves at any time: a misfortune befalls one of several, or waits until there are several.
    """

    def __init__(self, consul: ConsulSpace | ConsulProcess, record: Record, seed: int = 7) -> None:
        self._consul = consul
        self._record = record
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)
        self._all: list[ServiceProcess] = []
        self._several = asyncio.Condition()
        self.up: list[ServiceProcess] = []

    async def start(self, count: int) -> None:
        """Start ``count`` instances, and wait until they pass."""
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._start())

    async def _start(self, instance_id: str | None = None, port: int | None = None) -> None:
        name = instance_id or f"{SERVICE}-{next(self._numbers)}"
        one = await asyncio.to_thread(self._process, name, port)
        self._all.append(one)
        await asyncio.to_thread(one.until_passing)
        self._record.happened(f"{name} passes at {one.port}, pid {one.pid}")
        await self._give(one)

    def _process(self, instance_id: str, port: int | None = None) -> ServiceProcess:
        return ServiceProcess(self._consul, SERVICE, instance_id=instance_id, port=port, ttl_seconds=TTL_SECONDS)

    async def _give(self, one: ServiceProcess) -> None:
        async with self._several:
            self.up.append(one)
            self._several.notify_all()

    async def _take(self) -> ServiceProcess:
        async with self._several:
            await self._several.wait_for(lambda: len(self.up) > 1)
            one = self._random.choice(self.up)
            self.up.remove(one)
            return one

    async def kill(self) -> None:
        """SIGKILL; it starts again at another port."""
        one = await self._take()
        self._record.happened(f"SIGKILL {one.instance_id} at {one.port}")
        one.signal(signal.SIGKILL)
        one.end()
        await self._start(one.instance_id)

    async def pause(self, seconds: float = 3.0) -> None:
        """SIGSTOP: its connections stay, new ones are accepted, and nothing is answered."""
        one = await self._take()
        self._record.happened(f"SIGSTOP {one.instance_id} at {one.port}")
        one.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._record.happened(f"SIGCONT {one.instance_id} at {one.port}")
        one.signal(signal.SIGCONT)
        await asyncio.to_thread(one.until_passing)
        await self._give(one)

    async def drain(self) -> None:
        """SIGTERM."""
        await self._end(await self._take())

    async def _end(self, one: ServiceProcess) -> None:
        self._record.happened(f"SIGTERM {one.instance_id} at {one.port}")
        one.signal(signal.SIGTERM)
        await asyncio.to_thread(one.wait)
        self._record.happened(f"{one.instance_id} has gone")

    async def add(self) -> None:
        """A newcomer."""
        await self._start()

    async def move(self) -> None:
        """The same instance at another address: it is drained, and starts again under its name."""
        one = await self._take()
        await self._end(one)
        await self._start(one.instance_id)

    async def replace_unseen(self) -> None:
        """Kill one and start it at another port, while there is no Consul that could be told."""
        one = await self._take()
        one.end()
        self._record.happened(f"SIGKILL {one.instance_id} at {one.port}, unseen")
        other = await asyncio.to_thread(self._process, one.instance_id)
        self._all.append(other)
        await self._give(other)

    async def restart_each(self) -> None:
        """A rolling restart: each instance, when the one before passes again."""
        for one in list(self.up):
            self.up.remove(one)
            await self._end(one)
            await self._start(one.instance_id, one.port)

    async def torment(self, seconds: float, every_seconds: float = 2.0) -> None:
        """Have misfortunes befall them for ``seconds``, a new one every ``every_seconds``, and wait for the last."""
        misfortunes: list[Callable[[], Awaitable[None]]] = [self.kill, self.pause, self.drain, self.add, self.move]
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number, misfortune in enumerate(itertools.cycle(misfortunes)):
                await asyncio.sleep(began + number * every_seconds - time.monotonic())
                if time.monotonic() >= began + seconds:
                    break
                group.create_task(_as_coroutine(misfortune))

    def end(self) -> None:
        for one in self._all:
            one.end()


async def _as_coroutine(misfortune: Callable[[], Awaitable[None]]) -> None:
    await misfortune()


@asynccontextmanager
async def fleet(consul: ConsulSpace | ConsulProcess, record: Record, count: int = 3) -> AsyncIterator[Fleet]:
    """Instances that pass, ended after the block."""
    found = Fleet(consul, record)
    try:
        await found.start(count)
        yield found
    finally:
        await asyncio.to_thread(found.end)
