"""What the leader watches: one blocking query a prefix, and the two lists of checks that are not passing.

A healthy stack of any size costs nothing: nothing changes, so nothing answers. All feeds put what they get into the
same state and ring the same bell; the loop looks once for however many rings.

A change costs what its answer weighs, and a watch answers with all of its prefix. What the leader alone writes is
therefore not watched. Of the reports of node agents, which are the weight of a stack, those are read that have moved,
as long as all live agents signal them by their locks (see ``agent.reporter``). One that does not, because it is of an
earlier version or the stack has few nodes, makes the leader watch them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Callable, Collection, Set
from dataclasses import dataclass

from citadel_consul.consul.api import Indexed
from citadel_consul.consul.catalog import CheckState
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.consul.watch import Backoff, Fresh, Throttle, watch
from citadel_consul.errors import CitadelError
from citadel_consul.store.reading import checks_of_stack
from citadel_consul.store.state import StackState

log = logging.getLogger(__name__)

_BACKOFF = Backoff()
ONE_BY_ONE = 8
"""Up to so many reports are read one by one, and all at once beyond that."""
READ_ALL_SECONDS = 60.0
"""How often all reports are read whatever is signalled: a report that somebody else has changed is none's signal."""
CHECK_BURST, CHECKS_PER_SECOND, CHECKS_SELDOM = 10.0, 10.0, 2.0
"""How often checks are looked at, whose watch those of every stack wake: at once if one fails, and a thousand as often
as is of use. Seldom while none of this stack fails: that one begins to is told by its node agent first. That it passes
again is what a dependent may be waiting for."""

Entries = tuple[KVEntry, ...]


@dataclass(frozen=True, slots=True)
class Unread:
    """The reports that are to be read: those of ``nodes``, or all; ``restarted`` if ages say nothing any more."""

    nodes: Set[str] = frozenset()
    everything: bool = False
    restarted: bool = False

    def __add__(self, other: Unread) -> Unread:
        return Unread(self.nodes | other.nodes, self.everything or other.everything, self.restarted or other.restarted)


class Feed:
    """Keeps a :class:`StackState` up to date while :meth:`run` runs, and rings ``bell`` at each change."""

    def __init__(
        self,
        client: ConsulClient,
        state: StackState,
        bell: asyncio.Event,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._state = state
        self._bell = bell
        self._jitter = jitter
        self._blind: set[str] = set()
        self._rewritten = False
        self._signal = asyncio.Event()
        self._unread = Unread()
        self._failures = 0
        """How often in a row what is unread could not be read."""

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
        async with asyncio.TaskGroup() as group:
            for prefix in (keys.specs, keys.edges, keys.holds, keys.operations):
                group.create_task(self._watch_prefix(prefix))
            group.create_task(self._watch_agents())
            group.create_task(self._follow_reports())
            for status in ("critical", "warning"):
                group.create_task(self._watch_checks(status))

    # --- prefixes -----------------------------------------------------------------------------------------------

    async def _watch_prefix(self, prefix: str) -> None:
        async for news in self._listings(prefix):
            self._take(prefix, news)

    async def _listings(self, prefix: str) -> AsyncGenerator[Fresh[Entries], None]:
        """What lies below ``prefix``, each time that it moved; an entry that did not is the same object as before."""
        known: dict[str, KVEntry] = {}

        async def fetch(index: int | None, wait_seconds: float | None) -> Indexed[Entries]:
            listing = await self._client.kv_list(prefix, index, wait_seconds, known=known if index is not None else {})
            known.clear()
            known.update((entry.key, entry) for entry in listing.value)
            return listing

        async with contextlib.aclosing(watch(fetch)) as watching:
            async for news in watching:
                if isinstance(news, Fresh):
                    self._blind.discard(prefix)
                    yield news
                else:
                    self._blind.add(prefix)

    def _take(self, prefix: str, news: Fresh[Entries]) -> None:
        self._rewritten |= news.restarted
        if self._state.merge(prefix, news.index, news.value, restarted=news.restarted) or news.restarted:
            self._bell.set()

    # --- reports ------------------------------------------------------------------------------------------------

    async def _watch_agents(self) -> None:
        """Follow the locks of the node agents, by which they signal their reports."""
        keys = self._state.keys
        seen: dict[str, int] = {}
        async for news in self._listings(keys.agents):
            self._unread += Unread(everything=news.restarted, restarted=news.restarted)
            for entry in news.value:
                node = entry.key.removeprefix(keys.agents)
                known = (seen.get(entry.key), self._state.observed.index_of(keys.observed_of(node)))
                if entry.modify_index not in known:
                    self._unread += Unread({node})
            seen = {entry.key: entry.modify_index for entry in news.value}
            before = self._present()
            self._rewritten |= news.restarted
            self._state.merge(keys.agents, news.index, news.value, restarted=news.restarted)
            if news.restarted or self._present() != before:  # a signal alone is no news: the report that it is about is
                self._bell.set()
            self._signal.set()

    def _present(self) -> frozenset[str]:
        """The ids of the agents that hold their locks; an agent that was restarted has another."""
        return frozenset(record.id for record in self._state.agent_records())

    async def _follow_reports(self) -> None:
        while True:
            if self._state.reports_are_signalled():
                await self._read_what_moved()
            else:
                await self._watch_all_reports()

    async def _watch_all_reports(self) -> None:
        """Watch the reports of all nodes until all live agents signal theirs."""
        prefix = self._state.keys.observed
        async with contextlib.aclosing(self._listings(prefix)) as listings:
            async for news in listings:
                self._take(prefix, news)
                if self._state.reports_are_signalled():
                    return

    async def _read_what_moved(self) -> None:
        """Wait for signals, and read the reports that they are about."""
        try:
            async with asyncio.timeout(READ_ALL_SECONDS):
                await self._signal.wait()
        except TimeoutError:
            self._unread += Unread(everything=True)
        self._signal.clear()
        unread, self._unread = self._unread, Unread()
        try:
            if unread.everything or len(unread.nodes) > ONE_BY_ONE:
                await self._read_all(restarted=unread.restarted)
            else:
                await self._read_each(unread.nodes)
        except CitadelError as error:
            if not self._failures:
                log.info("reports of node agents could not be read, trying again: %s", error)
            self._failures += 1
            self._blind.add(self._state.keys.observed)
            self._unread += unread
            await asyncio.sleep(_BACKOFF.seconds(self._failures, error, self._jitter()))
            self._signal.set()
        else:
            self._failures = 0
            self._blind.discard(self._state.keys.observed)

    # A server that has not heard yet that it was deposed would answer with an older report than the one that was
    # signalled, and nothing would come after it. Hence the consistent reads; a watch has its index for that.

    async def _read_all(self, *, restarted: bool) -> None:
        prefix = self._state.keys.observed
        listing = await self._client.kv_list(prefix, consistent=True)
        self._take(prefix, Fresh(listing.index, listing.value, restarted))

    async def _read_each(self, nodes: Collection[str]) -> None:
        keys = self._state.keys
        for node in sorted(nodes):
            entry = await self._client.kv_get(keys.observed_of(node), consistent=True)
            if entry is not None and self._state.refresh(keys.observed, entry):
                self._bell.set()

    # --- checks -------------------------------------------------------------------------------------------------

    async def _watch_checks(self, status: str) -> None:
        own, throttle = checks_of_stack(self._state.keys.stack), Throttle(CHECK_BURST, CHECKS_SELDOM)

        async def fetch(index: int | None, wait_seconds: float | None) -> Indexed[tuple[CheckState, ...]]:
            return await self._client.health_state(status, index, wait_seconds, filter=own)

        async for news in watch(fetch, throttle=throttle):
            if not isinstance(news, Fresh):
                self._blind.add(status)
                continue
            self._blind.discard(status)
            checks: tuple[CheckState, ...] = news.value
            throttle.per_second = CHECKS_PER_SECOND if checks else CHECKS_SELDOM
            if self._state.merge_checks(status, checks):
                self._bell.set()
