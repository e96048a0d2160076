"""The records of jobs, in postgres: for people to look at, not for the queue to work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

from .database import Database
from .failures import Missing
from .indexing import Result, Work

_SCHEMA: LiteralString = """
CREATE TABLE IF NOT EXISTS jobs (
    id text PRIMARY KEY,
    document text NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'succeeded', 'failed')),
    attempts integer NOT NULL DEFAULT 1,
    chunks integer,
    error text,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
)
"""
_RUNNING: LiteralString = """
INSERT INTO jobs (id, document, state) VALUES (%s, %s, 'running')
ON CONFLICT (id) DO UPDATE SET state = 'running', attempts = jobs.attempts + 1, error = NULL, ended_at = NULL
"""
_ENDED: LiteralString = "UPDATE jobs SET state = %s, chunks = %s, error = %s, ended_at = now() WHERE id = %s"
_LATEST: LiteralString = "SELECT * FROM jobs ORDER BY started_at DESC, id LIMIT %s"
_GET: LiteralString = "SELECT * FROM jobs WHERE id = %s"


class Jobs:
    """The table of jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(self) -> None:
        """Make the table."""
        await self._database.ensure(_SCHEMA)

    async def running(self, works: Sequence[Work]) -> None:
        """Note that ``works`` are begun, once more if need be."""
        await self._database.execute_many(_RUNNING, [(work.job, work.document) for work in works])

    async def ended(self, results: Sequence[Result]) -> None:
        """Note how jobs ended."""
        rows = [("failed" if one.error else "succeeded", one.chunks, one.error or None, one.job) for one in results]
        await self._database.execute_many(_ENDED, rows)

    async def latest(self, limit: int) -> list[dict[str, Any]]:
        """The jobs begun last."""
        return await self._database.rows(_LATEST, [limit])

    async def get(self, identity: str) -> dict[str, Any]:
        """A job. Raises Missing until it is begun."""
        rows = await self._database.rows(_GET, [identity])
        if not rows:
            raise Missing(f"no job {identity} was begun yet")
        return rows[0]
