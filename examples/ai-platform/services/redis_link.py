"""Redis, found through Consul: one pooled client, made anew at another address when the old one fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError, ResponseError

from .discovery import Address, Discovery
from .failures import Unavailable


class RedisLink:
    """The service ``redis``. Strings come back as bytes: embeddings are no text."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._client: redis.Redis | None = None
        self._address: Address | None = None
        self._connecting = asyncio.Lock()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[redis.Redis]:
        """A client to use at once. Raises Unavailable for whatever keeps redis from answering."""
        client = await self._current()
        try:
            yield client
        except ResponseError as error:
            if isinstance(error, BusyLoadingError):
                raise Unavailable("redis is still loading its data") from error
            raise
        except (RedisError, OSError) as error:
            self._discovery.forget("redis")
            raise Unavailable(f"redis: {error}") from error

    async def probe(self) -> None:
        """Raise Unavailable unless redis answers."""
        async with self.client() as client:
            await client.ping()

    async def close(self) -> None:
        """Close the pooled connections."""
        if self._client:
            await self._client.aclose()
            self._client = None

    async def _current(self) -> redis.Redis:
        address = (await self._discovery.addresses("redis"))[0]
        async with self._connecting:
            if self._client is None or address != self._address:
                await self.close()
                self._client, self._address = _connect(address), address
            return self._client


def _connect(address: Address) -> redis.Redis:
    return redis.Redis(
        host=address.host,
        port=address.port,
        socket_connect_timeout=1.0,
        socket_timeout=10.0,
        # One retry, at once: a pooled connection that redis closed in between is no failure of redis.
        retry=Retry(NoBackoff(), 1),
    )
