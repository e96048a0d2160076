"""A queue of work in a redis stream: what was taken and not acknowledged is given out again.

Producers and consumers agree on nothing but the stream's name and its fields. Delivery is at least once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from .redis_link import RedisLink

JOBS = "ai-platform:jobs"
EVENTS = "ai-platform:events"
_BLOCK_MS = 2000
_ABANDONED_MS = 30_000


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a stream. ``id`` is redis's, and the same at every delivery."""

    id: str
    fields: dict[str, str]


async def put(link: RedisLink, stream: str, fields: Mapping[str, str], most: int | None = None) -> str:
    """Append an entry and return its id. ``most`` bounds the length, roughly; the oldest entries go."""
    async with link.client() as client:
        entry: dict[Any, Any] = dict(fields)
        identity = await client.xadd(stream, entry, maxlen=most, approximate=True)
    return identity.decode() if isinstance(identity, bytes) else str(identity)


class WorkQueue:
    """The reading end of a stream for one consumer of one group."""

    def __init__(self, link: RedisLink, stream: str, group: str, consumer: str) -> None:
        self._link = link
        self._stream = stream
        self._group = group
        self._consumer = consumer

    async def open(self) -> None:
        """Make the stream and the group, unless they exist."""
        async with self._link.client() as client:
            try:
                await client.xgroup_create(self._stream, self._group, id="0", mkstream=True)
            except ResponseError as error:
                # Redis's own error code, by which it says that the group exists.
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def unfinished(self, most: int) -> list[Item]:
        """What this consumer took and never acknowledged: it died, or failed, in between."""
        async with self._link.client() as client:
            answer = await client.xreadgroup(self._group, self._consumer, {self._stream: "0"}, count=most)
        return _items(answer)

    async def abandoned(self, most: int) -> list[Item]:
        """What another consumer took half a minute ago and more, taken over."""
        async with self._link.client() as client:
            answer = await client.xautoclaim(
                self._stream, self._group, self._consumer, min_idle_time=_ABANDONED_MS, count=most
            )
        return _entries(answer[1])

    async def take(self, most: int, wait_ms: int = _BLOCK_MS) -> list[Item]:
        """Up to ``most`` new entries; none when nothing came within ``wait_ms`` (0 does not wait)."""
        block = wait_ms or None  # redis itself reads 0 as 'for ever'
        async with self._link.client() as client:
            answer = await client.xreadgroup(self._group, self._consumer, {self._stream: ">"}, count=most, block=block)
        return _items(answer)

    async def done(self, items: Sequence[Item]) -> None:
        """Acknowledge ``items`` and remove them from the stream."""
        if items:
            ids = [item.id for item in items]
            async with self._link.client() as client, client.pipeline(transaction=True) as pipe:
                pipe.xack(self._stream, self._group, *ids)
                pipe.xdel(self._stream, *ids)
                await pipe.execute()

    async def size(self) -> int:
        """How many entries are waiting or under way: what is done is removed."""
        async with self._link.client() as client:
            return int(await client.xlen(self._stream))


def _items(answer: Any) -> list[Item]:
    """The entries of an XREADGROUP answer, which is a list of streams or, in RESP3, a mapping."""
    streams = answer.items() if isinstance(answer, dict) else answer or []
    found: list[Item] = []
    for _, entries in streams:
        batches = entries if entries and isinstance(entries[0], list) else [entries]
        for batch in batches:
            found += _entries(batch)
    return found


def _entries(batch: Any) -> list[Item]:
    # An entry that was removed from the stream in between comes without fields.
    return [
        Item(identity.decode(), {key.decode(): value.decode() for key, value in fields.items()})
        for identity, fields in batch
        if fields
    ]
