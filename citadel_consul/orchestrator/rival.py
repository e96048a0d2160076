"""Proof of death: a standby that knows the leader to be gone frees the lock instead of waiting for a TTL.

A standby keeps a connection open to the leader's address. When it ends, the standby connects again: a host that
*refuses* says that the process is gone, and then the standby destroys the leader's session. Nothing else is proof:
a time-out may be the network, and a refusal by an address to which no connection of this leadership ever stood may
be a leader that is bound to an address which cannot be reached from here (it would be deposed for ever).

A wrong guess does no harm, since each write of a leader is fenced; a pause keeps it rare.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.consul.watch import Fresh, watch
from citadel_consul.errors import CitadelError
from citadel_consul.store import documents
from citadel_consul.store.documents import UndecodableError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
UNREACHABLE_PAUSE_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 0.001
LONGEST_PAUSE_SECONDS = 0.5
DEPOSE_PAUSE_SECONDS = 1.0


class RivalWatch:
    """Watches whoever holds the leader lock, from the side of a standby."""

    def __init__(self, client: ConsulClient, leader_key: str, own_id: str) -> None:
        self._client = client
        self._key = leader_key
        self._own_id = own_id

    async def run(self) -> None:
        """Watch until cancelled; each leadership gets a watcher of its own."""
        async with asyncio.TaskGroup() as group:
            watcher: asyncio.Task[None] | None = None
            seen: str | None = None
            async for news in watch(lambda index, wait: self._client.kv_read(self._key, index, wait)):
                if not isinstance(news, Fresh):
                    continue
                entry: KVEntry | None = news.value
                session = entry.session if entry is not None else None
                if session == seen:
                    continue
                seen = session
                if watcher is not None:
                    watcher.cancel()
                    watcher = None
                address = self._address_of(entry)
                if session is not None and address is not None:
                    watcher = group.create_task(self._watch_leader(session, *address))

    def _address_of(self, entry: KVEntry | None) -> tuple[str, int] | None:
        if entry is None:
            return None
        try:
            record = documents.LEADER.decode(entry.value)
        except UndecodableError as error:
            log.warning("the leader's record cannot be read: %s", error)
            return None
        host, _, port = record.api.rpartition(":")
        if record.id == self._own_id or not host or not port.isdigit():
            return None
        return host.strip("[]"), int(port)

    async def _watch_leader(self, session: str, host: str, port: int) -> None:
        """Return when the leader at this address is proven dead and its session destroyed."""
        await self._until_refused(host, port)
        try:
            log.warning("the leader at %s:%d is gone (connection refused): freeing its lock", host, port)
            await self._client.session_destroy(session)
        except CitadelError as error:
            log.warning("its lock could not be freed, its TTL will do that: %s", error)
        await asyncio.sleep(DEPOSE_PAUSE_SECONDS)

    async def _until_refused(self, host: str, port: int) -> None:
        """Return when connections that once stood are refused."""
        stood = False
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                async with _connection(host, port) as reader:
                    stood = True
                    began = asyncio.get_running_loop().time()
                    await _until_closed(reader)
                    if asyncio.get_running_loop().time() - began > LONGEST_PAUSE_SECONDS:
                        pause = FIRST_PAUSE_SECONDS
            except ConnectionRefusedError:
                if stood:
                    return
                await asyncio.sleep(UNREACHABLE_PAUSE_SECONDS)
                continue
            except (OSError, TimeoutError):
                await asyncio.sleep(UNREACHABLE_PAUSE_SECONDS if not stood else pause)
            else:
                await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


@contextlib.asynccontextmanager
async def _connection(host: str, port: int) -> AsyncIterator[asyncio.StreamReader]:
    async with asyncio.timeout(CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader
    finally:
        writer.close()


async def _until_closed(reader: asyncio.StreamReader) -> None:
    """Return when the other side has ended the connection. It says nothing on it, since it was asked nothing."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(1024):
            pass
