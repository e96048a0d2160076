"""Postgres, found through Consul: a few connections, made when first needed and made anew when they broke.

Every statement of this platform may be repeated (they are reads, or writes keyed by an id of the caller), so one that
dies with a connection from the pool is tried once more on a fresh one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
from psycopg.rows import DictRow, dict_row

from .discovery import Resolver, instance
from .failures import Unavailable
from .settings import Settings

Connection = psycopg.AsyncConnection[DictRow]
Parameters = Sequence[Any] | Mapping[str, Any]
_STATEMENT_TIMEOUT_MS = 5000


class Database:
    """A pool of at most ``size`` connections to the service ``postgresql``."""

    def __init__(self, settings: Settings, resolver: Resolver, size: int = 4) -> None:
        self._settings = settings
        self._resolver = resolver
        self._slots = asyncio.Semaphore(size)
        self._idle: list[Connection] = []

    async def rows(self, sql: LiteralString, parameters: Parameters = ()) -> list[dict[str, Any]]:
        """What ``sql`` returns. Raises Unavailable when postgres cannot be reached."""
        async with self._slots:
            if self._idle:
                try:
                    return await self._run(self._idle.pop(), sql, parameters)
                except Unavailable:
                    # It broke while it lay idle: so did the others, most likely.
                    await self._drop_idle()
            return await self._run(await self._connect(), sql, parameters)

    async def execute(self, sql: LiteralString, parameters: Parameters = ()) -> None:
        """Run ``sql`` for its effect. Raises Unavailable when postgres cannot be reached."""
        await self.rows(sql, parameters)

    async def execute_many(self, sql: LiteralString, parameters: Sequence[Parameters]) -> None:
        """Run ``sql`` once for each of ``parameters``, all in one transaction."""
        async with self._slots, self._one() as connection, connection.transaction(), connection.cursor() as cursor:
            await cursor.executemany(sql, parameters)

    async def ensure(self, *definitions: LiteralString) -> None:
        """Run the (idempotent) ``definitions`` of a schema, one process at a time."""
        async with self._slots, self._one() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('ai-platform schema'))")
            for definition in definitions:
                await connection.execute(definition)

    async def probe(self) -> None:
        """Raise Unavailable unless postgres answers."""
        await self.rows("SELECT 1")

    async def close(self) -> None:
        """Close the idle connections."""
        await self._drop_idle()

    async def _run(self, connection: Connection, sql: LiteralString, parameters: Parameters) -> list[dict[str, Any]]:
        async with self._borrowed(connection):
            cursor = await connection.execute(sql, parameters or None)
            return await cursor.fetchall() if cursor.description else []

    @asynccontextmanager
    async def _one(self) -> AsyncIterator[Connection]:
        connection = self._idle.pop() if self._idle else await self._connect()
        async with self._borrowed(connection):
            yield connection

    @asynccontextmanager
    async def _borrowed(self, connection: Connection) -> AsyncIterator[None]:
        """Take ``connection`` back into the pool if it is still fit for use; translate its errors."""
        try:
            yield
        except psycopg.OperationalError as error:
            raise Unavailable(f"postgresql: {str(error).strip() or type(error).__name__}") from error
        finally:
            if connection.closed or connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                await connection.close()
            else:
                self._idle.append(connection)

    async def _connect(self) -> Connection:
        found = await instance(self._resolver, "postgresql")
        options = f"-c statement_timeout={_STATEMENT_TIMEOUT_MS}"
        try:
            return await psycopg.AsyncConnection.connect(
                host=found.host,
                port=found.port,
                dbname=self._settings.text("POSTGRES_DB", "ai_platform"),
                user=self._settings.text("POSTGRES_USER", "citadel"),
                password=self._settings.text("POSTGRES_PASSWORD"),
                application_name=self._settings.service,
                connect_timeout=3,
                options=options,
                autocommit=True,
                row_factory=dict_row,
            )
        except psycopg.OperationalError as error:
            self._resolver.report_failure(found)
            raise Unavailable(f"postgresql: {str(error).strip()}") from error

    async def _drop_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()
