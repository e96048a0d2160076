"""What the leader watches: one blocking query a prefix, and the two lists of checks that are not passing.

A healthy stack of any size costs nothing: nothing changes, so nothing answers. All feeds put what they get into the
same state and ring the same bell; the loop looks once for however many rings.
"""

from __future__ import annotations

import asyncio

from citadel_consul.consul.catalog import CheckState
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.consul.watch import Fresh, watch
from citadel_consul.store.state import StackState


class Feed:
    """Keeps a :class:`StackState` up to date while :meth:`run` runs, and rings ``bell`` at each change."""

    def __init__(self, client: ConsulClient, state: StackState, bell: asyncio.Event) -> None:
        self._client = client
        self._state = state
        self._bell = bell
        self._blind: set[str] = set()
        self._rewritten = False

    @property
    def blind(self) -> frozenset[str]:
        """What cannot be seen at the moment because Consul does not answer."""
        return frozenset(self._blind)

    def take_rewritten(self) -> bool:
        """Whether an index went backwards since this was last asked: what is not watched is to be read again, too."""
        rewritten, self._rewritten = self._rewritten, False
        return rewritten

    async def run(self) -> None:
        """Watch until cancelled. The absence of Consul is waited out by the watches."""
        keys = self._state.keys
        prefixes = (keys.specs, keys.edges, keys.holds, keys.agents, keys.observed, keys.operations, keys.incidents)
        async with asyncio.TaskGroup() as group:
            for prefix in prefixes:
                group.create_task(self._watch_prefix(prefix))
            for status in ("critical", "warning"):
                group.create_task(self._watch_checks(status))

    async def _watch_prefix(self, prefix: str) -> None:
        async for news in watch(lambda index, wait: self._client.kv_list(prefix, index, wait)):
            if not isinstance(news, Fresh):
                self._blind.add(prefix)
                continue
            self._blind.discard(prefix)
            entries: tuple[KVEntry, ...] = news.value
            self._rewritten |= news.restarted
            if self._state.merge(prefix, news.index, entries, restarted=news.restarted):
                self._bell.set()

    async def _watch_checks(self, status: str) -> None:
        async for news in watch(lambda index, wait: self._client.health_state(status, index, wait)):
            if not isinstance(news, Fresh):
                self._blind.add(status)
                continue
            self._blind.discard(status)
            checks: tuple[CheckState, ...] = news.value
            if self._state.merge_checks(status, checks):
                self._bell.set()
