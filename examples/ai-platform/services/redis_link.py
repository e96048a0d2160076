"""Redis, found through Consul: one pooled client, made anew when its instance no longer serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError, ResponseError

from .discovery import Instance, Resolver, instance, instances
from .failures import Unavailable


class RedisLink:
    """The service ``redis``. Strings come back as bytes: embeddings are no text."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._client: redis.Redis | None = None
        self._instance: Instance | None = None
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
            if self._instance is not None:
                self._resolver.report_failure(self._instance)
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
        serving = {one.address for one in await instances(self._resolver, "redis")}
        async with self._connecting:
            if self._client is None or self._instance is None or self._instance.address not in serving:
                await self.close()
                self._instance = await instance(self._resolver, "redis")
                self._client = _connect(self._instance)
            return self._client


def _connect(found: Instance) -> redis.Redis:
    return redis.Redis(
        host=found.host,
        port=found.port,
        socket_connect_timeout=1.0,
        socket_timeout=10.0,
        # One retry, at once: a pooled connection that redis closed in between is no failure of redis.
        retry=Retry(NoBackoff(), 1),
    )
