"""Service ``event-collector``: takes usage events from a redis stream to postgres, in batches.

An event's id in the stream is its key in the table, so an event that is delivered twice is counted once.
``GET /events?limit=50`` shows the latest, ``GET /usage`` what each client used.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import Any, LiteralString

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .application import Connections, Service, run
from .database import Database
from .failures import Unavailable
from .payload import Json, query_limit
from .redis_link import RedisLink
from .settings import Settings
from .work_queue import EVENTS, Item, WorkQueue

log = logging.getLogger(__name__)

_EVENTS_A_BATCH = 200
_RETRY_SECONDS = 1.0

_SCHEMA: LiteralString = """
CREATE TABLE IF NOT EXISTS usage_events (
    id text PRIMARY KEY,
    at timestamptz NOT NULL,
    client text NOT NULL,
    kind text NOT NULL,
    status integer NOT NULL,
    ms double precision NOT NULL,
    request_id text NOT NULL
)
"""
_INDEX: LiteralString = "CREATE INDEX IF NOT EXISTS usage_events_at ON usage_events (at)"
_INSERT: LiteralString = """
INSERT INTO usage_events (id, at, client, kind, status, ms, request_id) VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (id) DO NOTHING
"""
_LATEST: LiteralString = "SELECT * FROM usage_events ORDER BY at DESC, id DESC LIMIT %s"
_USAGE: LiteralString = """
SELECT client, kind, count(*) AS requests, count(*) FILTER (WHERE status >= 400) AS refused_or_failed,
    round(avg(ms)::numeric, 2)::float AS mean_ms,
    round(percentile_cont(0.95) WITHIN GROUP (ORDER BY ms)::numeric, 2)::float AS p95_ms, max(at) AS last_at
FROM usage_events GROUP BY client, kind ORDER BY client, kind
"""

Row = tuple[str, datetime, str, str, int, float, str]


def row_of(item: Item) -> Row | None:
    """The row of an event, or None if it is none: one bad entry must not hold up the rest."""
    fields = item.fields
    try:
        at, status, ms = datetime.fromisoformat(fields["at"]), int(fields["status"]), float(fields["ms"])
        return (item.id, at, fields["client"], fields["kind"], status, ms, fields["request_id"])
    except (KeyError, ValueError) as error:
        log.warning("dropped an entry that is no event", extra={"fields": {"entry": item.id, "reason": repr(error)}})
        return None


class Collector:
    """Moves events from the stream to the table."""

    def __init__(self, queue: WorkQueue, database: Database) -> None:
        self._queue = queue
        self._database = database
        self.collected = 0

    async def start(self) -> None:
        """Make the table and the consumer group."""
        await self._database.ensure(_SCHEMA, _INDEX)
        await self._queue.open()

    async def work(self) -> None:
        """Collect for ever."""
        while True:
            try:
                await self._collect()
            except Unavailable as reason:
                log.warning("waiting", extra={"fields": {"reason": reason.detail}})
                await asyncio.sleep(_RETRY_SECONDS)

    async def _collect(self) -> None:
        items = await self._queue.unfinished(_EVENTS_A_BATCH) or await self._queue.take(_EVENTS_A_BATCH)
        if not items:
            return
        rows = [row for row in map(row_of, items) if row is not None]
        await self._database.execute_many(_INSERT, rows)
        await self._queue.done(items)
        self.collected += len(rows)

    async def latest(self, limit: int) -> list[dict[str, Any]]:
        """The latest events."""
        return await self._database.rows(_LATEST, [limit])

    async def usage(self) -> list[dict[str, Any]]:
        """Requests, failures and response times by client and kind."""
        return await self._database.rows(_USAGE)

    async def figures(self) -> dict[str, Any]:
        """What waits and what was collected since the start."""
        try:
            return {"events_collected": self.collected, "queue_size": await self._queue.size()}
        except Unavailable:
            return {"events_collected": self.collected}


def build(settings: Settings, connections: Connections) -> Service:
    """The service over the redis and the postgres that Consul knows."""
    database, link = Database(settings, connections.resolver), RedisLink(connections.resolver)
    collector = Collector(WorkQueue(link, EVENTS, "event-collector", settings.node), database)

    async def latest(request: Request) -> Response:
        return Json({"events": await collector.latest(query_limit(request))})

    async def usage(_: Request) -> Response:
        return Json({"usage": await collector.usage()})

    return Service(
        settings,
        [Route("/events", latest), Route("/usage", usage)],
        start=collector.start,
        background=[collector.work],
        figures=collector.figures,
        probes={"postgresql": database.probe, "redis": link.probe},
        close=[link.close, database.close],
    )


if __name__ == "__main__":
    run("event-collector", build)
