"""The outbox of a leadership: which notices there are, and to whom they are still to be delivered.

It is read once, at the beginning of a leadership; after that nobody else writes it, and everything is written under the
fence. It is bounded: what is old and settled goes first, and in the end what nobody took. What comes while a write is
under way is written by the next, all of it together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.patience import patiently
from citadel_consul.core.notice import Notice
from citadel_consul.errors import Conflict, ConsulUnavailable
from citadel_consul.orchestrator.writer import FencedWriter
from citadel_consul.store.keys import Keys
from citadel_consul.store.postings import POSTING, Delivery, Posting, read_postings

log = logging.getLogger(__name__)

KEPT = 200
"""How many notices are remembered."""
RETRY_SECONDS = 0.5


class Outbox:
    """The postings of one stack, by the id of their notice."""

    def __init__(self, client: ConsulClient, keys: Keys, writer: FencedWriter) -> None:
        self._client = client
        self._keys = keys
        self._writer = writer
        self._postings: dict[str, Posting] = {}
        self._writing = asyncio.Lock()
        self._unwritten: dict[str, Posting | None] = {}
        """What is to be written: a new posting, or None for how the one known stands."""

    async def load(self) -> None:
        """Read what earlier leaders left, however long Consul takes."""
        found = await patiently(lambda: read_postings(self._client, self._keys))
        self._postings = {posting.notice.id: posting for posting in found}

    def said_of(self, incident_id: str) -> frozenset[str]:
        """The words of what was told of an incident, or is on its way."""
        prefix = f"{incident_id}/"
        return frozenset(key.removeprefix(prefix) for key in self._postings if key.startswith(prefix))

    def told_of(self, incident_id: str) -> frozenset[str]:
        """The receivers to whom anything of an incident was addressed."""
        prefix = f"{incident_id}/"
        of_it = (posting for key, posting in self._postings.items() if key.startswith(prefix))
        return frozenset(receiver for posting in of_it for receiver in posting.receivers)

    def next_for(self, receiver: str) -> Posting | None:
        """The oldest posting that is still to be delivered to ``receiver``."""
        pending = (posting for posting in self._postings.values() if posting.is_pending_for(receiver))
        return min(pending, key=lambda posting: posting.number, default=None)

    async def post(self, notice: Notice, receivers: Iterable[str]) -> None:
        """Take a new notice. It counts once it is written: nothing is sent that the next leader does not know of."""
        number = 1 + max((posting.number for posting in self._postings.values()), default=0)
        posting = Posting(notice, {name: Delivery() for name in receivers}, number)
        await self._write(notice.id, posting)
        self._postings[notice.id] = posting

    async def settle(self, notice_id: str, receiver: str, delivery: Delivery) -> None:
        """Note what became of a notice at ``receiver``."""
        posting = self._postings.get(notice_id)
        if posting is not None:
            self._postings[notice_id] = posting.settled(receiver, delivery)
            await self._write(notice_id, None)

    async def trim(self, unfinished: Collection[str]) -> None:
        """Forget the oldest beyond what is kept. What was told of ``unfinished`` incidents is kept in any case."""
        if len(self._postings) <= KEPT:
            return
        by_age = sorted(self._postings.values(), key=lambda posting: (posting.pending, posting.number))
        excess = by_age[: len(by_age) - KEPT]
        doomed = [posting for posting in excess if posting.notice.incident.id not in unfinished]
        for posting in doomed:
            if posting.pending:
                log.error("too many notices wait for their receivers; dropped: %s", posting.notice.title)
            self._postings.pop(posting.notice.id, None)
        try:
            await self._writer.delete_keys(self._keys.notice(posting.notice.id) for posting in doomed)
        except (ConsulUnavailable, Conflict) as error:
            log.info("old notices were not deleted, the next leader does it: %s", error)

    async def _write(self, notice_id: str, posting: Posting | None) -> None:
        """Write a posting, or how the one known stands when it is its turn: an older state must not come last."""
        self._unwritten[notice_id] = posting
        async with self._writing:
            while notice_id in self._unwritten:  # whoever had its turn before has written this as well
                await self._write_all()

    async def _write_all(self) -> None:
        """Write all that is to be written."""
        batch, self._unwritten = self._unwritten, {}
        latest = {key: self._postings.get(key) if posting is None else posting for key, posting in batch.items()}
        known = {key: posting for key, posting in latest.items() if posting is not None}  # others were trimmed
        try:
            await self._writer.put_keys((self._keys.notice(key), POSTING.encode(each)) for key, each in known.items())
        except (ConsulUnavailable, Conflict) as error:
            log.info("a notice was not noted, trying again: %s", error)
            self._unwritten = {**batch, **self._unwritten}
            await asyncio.sleep(RETRY_SECONDS)
