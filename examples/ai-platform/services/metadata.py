"""Service ``metadata-service``: the register of documents, in postgres.

A document that is new or changed is registered first and then queued for the batch processor. Should this process
die in between, the document stays ``queued`` with no job; documents that wait for more than a minute are therefore
queued once more. The texts in ``CORPUS_DIR`` are registered at every start, which changes nothing the second time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import uuid
from pathlib import Path
from typing import Any, LiteralString

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .application import Connections, Service, run
from .database import Database
from .failures import Clash, Missing, Rejected, Unavailable
from .payload import Json, body_of, query_limit, text, texts, whole
from .redis_link import RedisLink
from .settings import Settings
from .work_queue import JOBS, put

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
_LOOK_EVERY_SECONDS = 15.0

_SCHEMA: LiteralString = """
CREATE TABLE IF NOT EXISTS documents (
    id text PRIMARY KEY,
    title text NOT NULL,
    body text NOT NULL,
    sha256 text NOT NULL,
    status text NOT NULL CHECK (status IN ('queued', 'indexed', 'failed')),
    chunks integer NOT NULL DEFAULT 0,
    queued_at timestamptz NOT NULL DEFAULT now(),
    indexed_at timestamptz
)
"""
# Nothing is returned when the same content is registered already.
_PUT: LiteralString = """
INSERT INTO documents (id, title, body, sha256, status) VALUES (%(id)s, %(title)s, %(body)s, %(sha256)s, 'queued')
ON CONFLICT (id) DO UPDATE SET title = excluded.title, body = excluded.body, sha256 = excluded.sha256,
    status = 'queued', queued_at = now()
WHERE documents.sha256 <> excluded.sha256
RETURNING id
"""
_GET: LiteralString = """
SELECT id, title, body AS text, sha256, status, chunks, queued_at, indexed_at FROM documents WHERE id = %s
"""
_LIST: LiteralString = "SELECT id, title, status, chunks, queued_at, indexed_at FROM documents ORDER BY id LIMIT %s"
_TITLES: LiteralString = "SELECT id, title FROM documents WHERE id = ANY(%s)"
_SETTLE: LiteralString = """
UPDATE documents SET status = %(status)s, chunks = %(chunks)s, indexed_at = now()
WHERE id = %(id)s AND sha256 = %(sha256)s RETURNING id
"""
_REQUEUE: LiteralString = "UPDATE documents SET status = 'queued', queued_at = now() WHERE id = %s RETURNING id"
_WAITING: LiteralString = """
UPDATE documents SET queued_at = now() WHERE status = 'queued' AND queued_at < now() - interval '1 minute' RETURNING id
"""
_COUNTS: LiteralString = "SELECT status, count(*) AS number, sum(chunks) AS chunks FROM documents GROUP BY status"


def corpus(folder: Path) -> list[dict[str, str]]:
    """The documents in ``folder``: one for each ``.txt`` file, the first line of which is the title."""
    found = []
    for file in sorted(folder.glob("*.txt")):
        title, _, body = file.read_text(encoding="utf-8").partition("\n")
        found.append({"id": file.stem, "title": title.strip(), "text": body.strip()})
    return found


class Documents:
    """The documents in the database, and the queue of those to be indexed."""

    def __init__(self, database: Database, link: RedisLink, seed: Path | None) -> None:
        self._database = database
        self._link = link
        self._seed = seed

    async def start(self) -> None:
        """Make the table and register the corpus."""
        await self._database.ensure(_SCHEMA)
        if self._seed:
            for document in corpus(self._seed):
                await self.put(document)

    async def put(self, body: dict[str, Any]) -> dict[str, Any]:
        """Register a document and queue it, unless the same content is registered already."""
        title, content = text(body, "title", longest=300), text(body, "text", longest=500_000)
        identity = text(body, "id", default=uuid.uuid4().hex, longest=100)
        if not _ID.fullmatch(identity):
            raise Rejected("id: letters, digits, dots, dashes and underscores only")
        sha256 = hashlib.sha256(f"{title}\n{content}".encode()).hexdigest()
        row = {"id": identity, "title": title, "body": content, "sha256": sha256}
        if not await self._database.rows(_PUT, row):
            return {"id": identity, "status": "unchanged", "job": None}
        return {"id": identity, "status": "queued", "job": await self._queue(identity)}

    async def get(self, identity: str) -> dict[str, Any]:
        """A document. Raises Missing."""
        rows = await self._database.rows(_GET, [identity])
        if not rows:
            raise Missing(f"there is no document {identity}")
        return rows[0]

    async def every(self, limit: int) -> list[dict[str, Any]]:
        """All documents, without their texts."""
        return await self._database.rows(_LIST, [limit])

    async def titles(self, ids: list[str]) -> dict[str, str]:
        """The titles of those of ``ids`` that exist."""
        return {row["id"]: row["title"] for row in await self._database.rows(_TITLES, [ids])}

    async def settle(self, identity: str, body: dict[str, Any]) -> None:
        """Note how indexing ended. Raises Clash when the document is no longer the one that was indexed."""
        status = text(body, "status")
        if status not in ("indexed", "failed"):
            raise Rejected("status: indexed or failed is required")
        chunks = whole(body, "chunks", default=0, low=0, high=1_000_000)
        row = {"id": identity, "sha256": text(body, "sha256"), "status": status, "chunks": chunks}
        if not await self._database.rows(_SETTLE, row):
            raise Clash(f"document {identity} was changed or removed in the meantime")

    async def requeue(self, identity: str) -> str:
        """Queue a document once more and return the id of the job. Raises Missing."""
        if not await self._database.rows(_REQUEUE, [identity]):
            raise Missing(f"there is no document {identity}")
        return await self._queue(identity)

    async def look_after(self) -> None:
        """Queue again, for ever, what waits for too long."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
            try:
                for row in await self._database.rows(_WAITING):
                    log.warning("queued again", extra={"fields": {"document": row["id"]}})
                    await self._queue(row["id"])
            except Unavailable as reason:
                log.warning("cannot look after documents", extra={"fields": {"reason": reason.detail}})

    async def figures(self) -> dict[str, Any]:
        """How many documents there are in each state."""
        try:
            rows = await self._database.rows(_COUNTS)
        except Unavailable:
            return {}
        by_status = {f"documents_{row['status']}": row["number"] for row in rows}
        return {**by_status, "chunks": int(sum(row["chunks"] for row in rows))}

    async def _queue(self, identity: str) -> str:
        job = uuid.uuid4().hex
        await put(self._link, JOBS, {"job": job, "document": identity})
        return job


def build(settings: Settings, connections: Connections) -> Service:
    """The service over the postgres and the redis that Consul knows."""
    database, link = Database(settings, connections.resolver), RedisLink(connections.resolver)
    folder = settings.text("CORPUS_DIR")
    documents = Documents(database, link, Path(folder) if folder else None)

    async def put_document(request: Request) -> Response:
        return Json(await documents.put(await body_of(request)))

    async def list_documents(request: Request) -> Response:
        return Json({"documents": await documents.every(query_limit(request, high=10_000))})

    async def get_document(request: Request) -> Response:
        return Json(await documents.get(request.path_params["id"]))

    async def titles(request: Request) -> Response:
        return Json({"titles": await documents.titles(texts(await body_of(request), "ids", most=100))})

    async def settle(request: Request) -> Response:
        await documents.settle(request.path_params["id"], await body_of(request))
        return Json({"id": request.path_params["id"]})

    async def requeue(request: Request) -> Response:
        return Json({"job": await documents.requeue(request.path_params["id"])})

    return Service(
        settings,
        [
            Route("/documents", put_document, methods=["PUT"]),
            Route("/documents", list_documents),
            Route("/documents/titles", titles, methods=["POST"]),
            Route("/documents/{id}", get_document),
            Route("/documents/{id}/status", settle, methods=["PUT"]),
            Route("/documents/{id}/jobs", requeue, methods=["POST"]),
        ],
        start=documents.start,
        background=[documents.look_after],
        figures=documents.figures,
        probes={"postgresql": database.probe, "redis": link.probe},
        close=[link.close, database.close],
    )


if __name__ == "__main__":
    run("metadata-service", build)
