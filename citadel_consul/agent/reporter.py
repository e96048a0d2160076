"""Saying what is observed: one document for the node, written under the fence of the agent's own lock.

Runners report as often as they like; what is written is the latest of all of them, one write at a time, so a burst
of changes costs as many writes as Consul can take and not one more. That something is starting is told a moment late,
since nobody acts on it: what is ready within that moment has one report instead of two, and so has everybody who reads
it.

In a stack of more than :data:`FEW_NODES` nodes each report rewrites the key of the agent's lock as well. A watch
answers with all that lies below a prefix: the locks of 200 nodes are 0.1 MB, their reports 2 MB. So the leader watches
the locks, and reads the reports that have moved. An agent says in its report whether it signals; the first one that
does not say so is signalled, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.consul.transaction import TxnOp, check_session, set_key
from citadel_consul.consul.watch import Fresh, Throttle, watch
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import Instance
from citadel_consul.errors import CitadelError, ConsulUnavailable
from citadel_consul.store import documents
from citadel_consul.store.documents import Event, NodeObserved
from citadel_consul.store.keys import Keys

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
SETTLE_SECONDS = 0.2
"""How long a report that looks changed is left before it is looked at again: it may be our own next one."""
UNHURRIED_SECONDS = 0.05
"""How long a report of a start waits for what comes next."""
LOOKS_AT_ONCE, LOOKS_PER_SECOND = 1.0, 1.0
"""Each report that is written wakes the watch of it, and a burst of them is worth one look."""
EVENTS_AT_ONCE = 60
"""A transaction takes 64 operations; three of them are the fence, the report itself and its signal."""
FEW_NODES = 8
"""Up to here the leader has all reports at once, which saves it a request for each."""


class Reporter:
    """Keeps ``observed/<node>`` true. Reports are taken at any time and written while :meth:`run` runs."""

    def __init__(self, client: ConsulClient, keys: Keys, node: str, last: NodeObserved | None) -> None:
        self._client = client
        self._keys = keys
        self._node = node
        self._document = last or NodeObserved(epoch=0)
        self._events: list[Event] = []
        self._signals = 0
        self._signalled = self._document.signals
        self._written: bytes | None = None  # None also while a write is under way
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()

    @property
    def document(self) -> NodeObserved:
        return self._document

    def report(self, instance: Instance, observed: Observed) -> None:
        """Take what a runner says of its instance."""
        if self._document.instances.get(instance.service) != observed:
            self._replace({**self._document.instances, instance.service: observed}, observed.phase is Phase.STARTING)

    def forget(self, instance: Instance) -> None:
        """Say nothing more of an instance that is no longer wanted, nor there."""
        self._replace({s: o for s, o in self._document.instances.items() if s != instance.service})

    def obeyed(self, epoch: int) -> None:
        """Take note of the highest epoch whose orders were followed."""
        if epoch > self._document.epoch:
            self._document = replace(self._document, epoch=epoch)
            self._hurry()

    def record(self, event: Event) -> None:
        """Write an event into the history with the next report."""
        self._events.append(event)
        self._dirty.set()

    def _replace(self, instances: Mapping[str, Observed], unhurried: bool = False) -> None:
        self._document = replace(self._document, instances=instances)
        if unhurried:
            self._dirty.set()
        else:
            self._hurry()

    def _hurry(self) -> None:
        """Have the document written at once."""
        self._dirty.set()
        self._urgent.set()

    async def run(
        self,
        session: str,
        *,
        lock_value: bytes = b"",
        signals: Callable[[], bool] = lambda: False,
        on_new_log: Callable[[], None] = lambda: None,
    ) -> None:
        """Write the document now and whenever it changes, as long as ``session`` holds the agent's lock.

        While ``signals`` says so, the key of the lock is rewritten with it: ``lock_value``, and a number, since the
        same value again is no write to Consul.

        Raises ``LeadershipLost`` when it does not any more. Consul's absence is waited out: what is observed
        meanwhile is written when it is back. ``on_new_log`` is called when Consul's data turned out to have begun
        anew.
        """
        self._hurry()
        while True:
            await self._until_due()
            self._dirty.clear()
            self._urgent.clear()
            events = self._events[:EVENTS_AT_ONCE]
            self._document = replace(self._document, signals=signals())
            extra = [self._signal(lock_value)] if self._document.signals or self._signalled else []
            value, signalled, self._written = documents.OBSERVED.encode(self._document), self._document.signals, None
            try:
                result = await self._client.transact([*self._operations(session, value, events), *extra])
            except ConsulUnavailable:
                self._hurry()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._written, self._signalled = value, signalled
            del self._events[: len(events)]  # not before they are written: the lock can be lost meanwhile
            if self._events:
                self._dirty.set()
            if self._log_began_anew(result.entry(self._keys.observed_of(self._node)).modify_index):
                on_new_log()

    async def _until_due(self) -> None:
        """Wait for something to write, and for a moment more if it can wait."""
        await self._dirty.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UNHURRIED_SECONDS):
                await self._urgent.wait()

    async def mind(self) -> None:
        """Write the report again when Consul holds another one, until cancelled.

        A snapshot that was restored has an old report, and nothing here has changed that would have it written again.
        """
        key = self._keys.observed_of(self._node)
        seldom = Throttle(LOOKS_AT_ONCE, LOOKS_PER_SECOND)
        async for news in watch(lambda index, wait: self._client.kv_read(key, index, wait), throttle=seldom):
            if isinstance(news, Fresh) and _differs(news.value, self._written):
                await asyncio.sleep(SETTLE_SECONDS)
                if await self._is_changed(key):
                    log.warning("the report of this node was changed in Consul: it is written again")
                    self._hurry()

    async def _is_changed(self, key: str) -> bool:
        written = self._written
        try:
            entry = await self._client.kv_get(key)
        except CitadelError:
            return False  # the watch will come round again
        return written is self._written and _differs(entry, written)

    def _log_began_anew(self, index: int) -> bool:
        """Compare the epoch that was obeyed with the index of a write of ours; forget it if it cannot be from this log.

        An epoch is an index of Consul's raft log, so every later write has a higher one. If it has not, Consul lost
        its data or was restored into a new cluster, and no leader would be obeyed until the new log is as long.
        """
        if index >= self._document.epoch:
            return False
        log.warning("Consul's log began anew: index %d after epoch %d was obeyed", index, self._document.epoch)
        self._document = replace(self._document, epoch=0)
        self._hurry()
        return True

    def _signal(self, lock_value: bytes) -> TxnOp:
        self._signals += 1
        record = replace(documents.AGENT.decode(lock_value), reports=self._signals)
        return set_key(self._keys.agent(self._node), documents.AGENT.encode(record))

    def _operations(self, session: str, value: bytes, events: list[Event]) -> list[TxnOp]:
        return [
            check_session(self._keys.agent(self._node), session),
            set_key(self._keys.observed_of(self._node), value),
            *(set_key(self._keys.event(e.id), documents.EVENT.encode(e)) for e in events),
        ]


def _differs(entry: KVEntry | None, written: bytes | None) -> bool:
    return written is not None and (entry is None or entry.value != written)
