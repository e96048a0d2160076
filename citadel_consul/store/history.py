"""Reading the history of a stack: events, oldest first."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.consul.watch import Fresh, watch
from citadel_consul.store import documents
from citadel_consul.store.documents import Event, UndecodableError
from citadel_consul.store.keys import Keys


async def read_events(client: ConsulClient, keys: Keys) -> list[Event]:
    """All events that are kept, oldest first."""
    listing = await client.kv_list(keys.events)
    return decode_events(keys, listing.value)


async def follow_events(client: ConsulClient, keys: Keys, *, last: int = 0) -> AsyncGenerator[Event, None]:
    """The ``last`` events that are there, then each as it comes. Never ends by itself."""
    seen: set[str] | None = None
    async for news in watch(lambda index, wait: client.kv_list(keys.events, index, wait)):
        if not isinstance(news, Fresh):
            continue
        entries: tuple[KVEntry, ...] = news.value
        known = seen if seen is not None else {entry.key for entry in (entries[:-last] if last else entries)}
        for event in decode_events(keys, [entry for entry in entries if entry.key not in known]):
            yield event
        seen = {entry.key for entry in entries}


def decode_events(keys: Keys, entries: Iterable[KVEntry]) -> list[Event]:
    """The events that can be read; ids sort by time."""
    found = []
    for entry in entries:
        try:
            found.append(documents.EVENT.decode(entry.value, id=entry.key.removeprefix(keys.events)))
        except UndecodableError:
            continue
    return sorted(found, key=lambda event: event.id)
