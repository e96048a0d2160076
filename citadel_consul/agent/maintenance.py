"""Maintenance: a hold that says so also takes what it covers out of DNS, as long as it stands.

Each node agent does that for the instances of its node, from the holds themselves: nobody has to be told, and when a
hold has run out, or is gone, its mark goes with it. Marks that a person has set (``consul maint``) are told by their
notes, and left alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.consul.watch import Fresh, watch
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Instance
from citadel_consul.core.snapshot import Hold
from citadel_consul.errors import CitadelError, NotFound
from citadel_consul.rendering.identity import service_id
from citadel_consul.store.cache import PrefixCache
from citadel_consul.store.holds import decode_hold
from citadel_consul.store.keys import Keys
from citadel_consul.store.state import instance_of

log = logging.getLogger(__name__)

MARK = "citadel hold"
"""How the notes of a mark of ours begin."""
LEAVING = frozenset({Phase.DRAINING, Phase.STOPPING})
"""The phases in which an instance must not be named, whoever has set the mark: it goes with the registration."""
LOOK_SECONDS = 2.0
"""A hold runs out without anybody saying so, and an instance that is started anew is registered without its mark."""


class Maintenance:
    """Keeps the maintenance mode of the instances of one node as the holds say. Run :meth:`run` in a task."""

    def __init__(
        self,
        client: ConsulClient,
        keys: Keys,
        node: str,
        phases: Callable[[], Iterable[tuple[str, Phase]]],
        wall: Callable[[], float],
    ) -> None:
        self._client = client
        self._keys = keys
        self._node = node
        self._phases = phases
        self._wall = wall
        self._holds: PrefixCache[Hold] = PrefixCache(lambda entry: decode_hold(keys, entry))
        self._news = asyncio.Event()
        self._marked = True  # an earlier agent may have left marks

    async def run(self) -> None:
        """Watch the holds and follow them until cancelled. Consul's absence is waited out."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            await self._news.wait()
            while True:
                self._news.clear()
                try:
                    await self._settle()
                except CitadelError as error:
                    log.info("the maintenance mode was not set: %s", error)
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._news.wait()
                except TimeoutError:
                    continue

    async def _watch(self) -> None:
        async for news in watch(lambda index, wait: self._client.kv_list(self._keys.holds, index, wait)):
            if isinstance(news, Fresh):
                entries: tuple[KVEntry, ...] = news.value
                self._holds.merge(news.index, entries)
                self._news.set()

    async def _settle(self) -> None:
        """Set the marks that are missing, and take away those of ours that nothing asks for."""
        now = self._wall()
        holds = [hold for hold in self._holds.values.values() if hold.maintenance and hold.stands(now)]
        if not holds and not self._marked:
            return
        marks = await self._marks()
        self._marked = any(notes.startswith(MARK) for notes in marks.values())
        for service, phase in list(self._phases()):
            instance = Instance(service, self._node)
            hold = next((hold for hold in holds if hold.covers(instance)), None)
            notes = marks.get(service)
            if hold is not None and notes is None and phase is Phase.READY:
                await self._set(instance, hold)
            elif hold is None and notes is not None and notes.startswith(MARK) and phase not in LEAVING:
                await self._clear(instance)

    async def _marks(self) -> dict[str, str]:
        """The services of this node in maintenance mode, with the notes on why."""
        found = {}
        for check in (await self._client.agent_checks()).values():
            instance = instance_of(self._keys.stack, check.service_id)
            if check.is_maintenance and instance is not None and instance.node == self._node:
                found[instance.service] = check.notes
        return found

    async def _set(self, instance: Instance, hold: Hold) -> None:
        why = ": ".join(part for part in (MARK, hold.by, hold.reason) if part)
        try:
            await self._client.service_maintenance(self._id(instance), True, why)
        except NotFound:
            return  # not registered: nobody finds it anyway
        self._marked = True

    async def _clear(self, instance: Instance) -> None:
        try:
            await self._client.service_maintenance(self._id(instance), False)
        except NotFound:
            return

    def _id(self, instance: Instance) -> str:
        return service_id(self._keys.stack, instance.service, instance.node)
