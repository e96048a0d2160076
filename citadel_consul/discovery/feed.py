"""Keeps views up to date: one watch for each service, within a bounded number of connections.

A watch is the stream of ``consul.watch``, whose questions are paced here: with a slot it waits in a blocking query and
learns of a change at once; without one it asks when the service is used and what is known is old, and now and then.
Consul's absence changes nothing of what is known.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Final

from citadel_consul.consul.api import Indexed
from citadel_consul.consul.instances import Instances as Endpoint
from citadel_consul.consul.watch import Backoff, Fresh, Lost, watch
from citadel_consul.discovery.choice import Instances
from citadel_consul.discovery.roster import Roster
from citadel_consul.discovery.slots import Slots
from citadel_consul.discovery.view import View
from citadel_consul.errors import CitadelError, NotFound

log = logging.getLogger(__name__)

AGENT: Final = "_agent"
WATCHES: Final = 32
POLLS_AT_ONCE: Final = 8
POLL_SECONDS: Final = 60.0
FAILOVER_SECONDS: Final = 5.0
RETIRE_SECONDS: Final = 3600.0

# After an outage everything has to be true again within five seconds, so nobody may sleep longer than that.
BACKOFF: Final = Backoff(first_seconds=0.05, longest_seconds=3.0)


class _Retired(Exception):
    """Nobody has used the service for so long that it is not followed any more."""


class Feed:
    """Follows services until :meth:`run` is cancelled. All methods belong to the loop that runs it."""

    def __init__(
        self,
        consul: Endpoint,
        *,
        near: bool,
        failover: bool,
        watches: int = WATCHES,
        retire: Callable[[View], None] = lambda _: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._consul = consul
        self._near = AGENT if near else None
        self._failover = failover
        self._slots = Slots(watches)
        self._polls = asyncio.Semaphore(POLLS_AT_ONCE)
        self._retire = retire
        self._jitter = jitter
        self._wanted: asyncio.Queue[View] = asyncio.Queue()
        self._troubled: set[View] = set()

    def follow(self, view: View) -> None:
        """Keep ``view`` up to date from now on."""
        self._wanted.put_nowait(view)

    async def run(self) -> None:
        """Follow what is wanted, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                view = await self._wanted.get()
                group.create_task(self._follow(view), name=f"follow {view.name}")

    async def _follow(self, view: View) -> None:
        due, lonely = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def ask() -> None:
            loop.call_soon_threadsafe(due.set)

        view.on_ask(ask)
        self._slots.candidates += 1
        try:
            async with asyncio.TaskGroup() as group:
                helping = group.create_task(self._stand_in(view, lonely)) if self._failover else None
                try:
                    await self._watch(view, due, lonely)
                finally:
                    if helping is not None:
                        helping.cancel()
        finally:
            self._slots.candidates -= 1
            self._slots.leave(view)
            self._troubled.discard(view)
            view.live, view.retired = False, True
            view.on_ask(lambda: None)
            self._retire(view)

    async def _watch(self, view: View, due: asyncio.Event, lonely: asyncio.Event) -> None:
        stream = watch(partial(self._fetch, view, due), backoff=BACKOFF, jitter=self._jitter)
        outage = False
        try:
            async with aclosing(stream) as facts:
                async for fact in facts:
                    if isinstance(fact, Lost):
                        outage = True
                        self._lost(view, fact.error)
                    else:
                        self._learned(view, fact, outage or fact.restarted, lonely)
                        outage = False
        except _Retired:
            return

    def _lost(self, view: View, error: CitadelError) -> None:
        view.live, view.trouble = False, error
        if not self._troubled:  # said once, however many services there are
            log.warning("Consul cannot be asked, what is known stays in use: %s", error)
        self._troubled.add(view)
        view.announce()

    def _learned(self, view: View, fact: Fresh[Instances], distrusted: bool, lonely: asyncio.Event) -> None:
        if view.trouble is not None:
            view.reconnects += 1
        first = not view.known or view.trouble is not None
        view.trouble = None
        if view in self._troubled:
            self._troubled.discard(view)
            if not self._troubled:
                log.info("Consul answers again, about every service in use")

        def told(roster: Roster, now: float) -> Roster:
            return roster.told(fact.value, now, after_outage=distrusted)

        changed = view.balancer.update(told)
        if view.balancer.roster.local:
            lonely.clear()
        else:
            lonely.set()
        if changed or first:
            view.announce()

    async def _fetch(
        self, view: View, due: asyncio.Event, index: int | None, wait_seconds: float | None
    ) -> Indexed[Instances]:
        """One question about the service of ``view``: at once, or when it is due, or one that waits for news."""
        idle = view.idle_seconds
        if idle >= RETIRE_SECONDS:
            raise _Retired
        if self._slots.grant(view, idle):
            view.live = True
            return await self._ask(view, index, wait_seconds)
        view.live = False
        if index is not None:
            await self._until_due(due)
        async with self._polls:
            view.asked()
            return await self._ask(view, None, None)

    async def _until_due(self, due: asyncio.Event) -> None:
        due.clear()
        try:
            async with asyncio.timeout(POLL_SECONDS * (1 + self._jitter()) / 2):
                await due.wait()
        except TimeoutError:
            return

    async def _ask(self, view: View, index: int | None, wait_seconds: float | None) -> Indexed[Instances]:
        # The agent's cache does not know of 'near': its answers would be in anybody's order.
        cached = self._near is None
        service, tag = view.name
        return await self._consul.service_instances(
            service, index, wait_seconds, tag=tag, near=self._near, cached=cached
        )

    async def _stand_in(self, view: View, lonely: asyncio.Event) -> None:
        """While there is no local instance, ask the prepared query of the service's name for others."""
        while True:
            await lonely.wait()
            found: Instances = ()
            try:
                found = await self._consul.query_instances(view.name.service, self._near)
            except NotFound:
                log.warning("%s: there is no prepared query of this name, so nothing can stand in for it", view.name)
            except CitadelError as error:
                log.warning("%s: no instance of another datacenter could be found: %s", view.name, error)
            tag = view.name.tag
            remote = tuple([instance for instance in found if tag is None or tag in instance.tags])
            if lonely.is_set() and view.balancer.update(partial(_helped, remote)):
                view.announce()
            await asyncio.sleep(FAILOVER_SECONDS * (1 + self._jitter()) / 2)


def _helped(remote: Instances, roster: Roster, _: float) -> Roster:
    return roster.helped(remote)
