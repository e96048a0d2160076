"""Service ``batch-processor``: indexes documents in batches.

Jobs come from a redis stream; a batch of documents is cut into pieces, embedded together, and written to the vector
store; each job has a record in postgres. A job is acknowledged when all of that is done, so one that was interrupted
comes again; every step may be repeated. What fails because a service is away waits for it; what fails because
of the document itself is ``failed`` at once.

Ready means: the vector store holds what the register says, and the queue that was found is worked off.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic, perf_counter
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .application import Connections, Service, run
from .database import Database
from .failures import Unavailable
from .indexing import Indexer, Work
from .jobs import Jobs
from .payload import Json, body_of, query_limit, texts
from .peers import Peers
from .redis_link import RedisLink
from .settings import Settings
from .vector_space import VectorSpace
from .vitals import Vitals
from .work_queue import JOBS, Item, WorkQueue

log = logging.getLogger(__name__)

_DOCUMENTS_A_BATCH = 16
_LOOK_FOR_ABANDONED_SECONDS = 30.0
_RETRY_SECONDS = (0.1, 0.5, 1.0, 2.0)


class Processor:
    """Takes jobs from the queue and sees them through."""

    def __init__(self, queue: WorkQueue, jobs: Jobs, indexer: Indexer, longest_queue: int) -> None:
        self._queue = queue
        self._jobs = jobs
        self._indexer = indexer
        self._longest_queue = longest_queue
        self._pace = Vitals()
        self._failures = 0
        self._looked_at = 0.0

    async def start(self) -> None:
        """Make the table and the queue, then work off what is there."""
        await self._jobs.start()
        await self._queue.open()
        await self._indexer.repair()
        while items := await self._next(wait_ms=0):
            await self._process(items)

    async def work(self) -> None:
        """Process jobs for ever."""
        while True:
            try:
                await self._process(await self._next())
                self._failures = 0
            except Unavailable as reason:
                delay = _RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS) - 1)]
                self._failures += 1
                log.warning("waiting", extra={"fields": {"reason": reason.detail, "retry_in_seconds": delay}})
                await asyncio.sleep(delay)

    async def _next(self, wait_ms: int = 2000) -> list[Item]:
        if items := await self._queue.unfinished(_DOCUMENTS_A_BATCH):
            return items
        if monotonic() - self._looked_at > _LOOK_FOR_ABANDONED_SECONDS:
            self._looked_at = monotonic()
            if items := await self._queue.abandoned(_DOCUMENTS_A_BATCH):
                return items
        return await self._queue.take(_DOCUMENTS_A_BATCH, wait_ms)

    async def _process(self, items: list[Item]) -> None:
        if not items:
            return
        begun = perf_counter()
        works = [Work(item.fields["job"], item.fields["document"]) for item in items if _complete(item)]
        await self._jobs.running(works)
        results = await self._indexer.index(works)
        await self._jobs.ended(results)
        await self._queue.done(items)
        seconds = perf_counter() - begun
        for result in results:
            self._pace.record(seconds / len(results), failed=bool(result.error))
        chunks = sum(result.chunks for result in results)
        log.info("batch done", extra={"fields": {"jobs": len(results), "chunks": chunks, "seconds": round(seconds, 3)}})

    async def figures(self) -> dict[str, Any]:
        """The queue and how fast it is worked off (documents a second over the last minute)."""
        pace = self._pace.figures()
        figures = {"processing_rate": pace["request_rate"], "jobs_processed": pace["requests_total"]}
        try:
            size = await self._queue.size()
        except Unavailable:
            return figures
        degraded = [f"the queue holds {size} jobs"] if size > self._longest_queue else []
        return {**figures, "queue_size": size, "degraded": degraded}


def _complete(item: Item) -> bool:
    if item.fields.keys() >= {"job", "document"}:
        return True
    log.error("dropped an entry that is no job", extra={"fields": {"entry": item.id}})
    return False


async def submit(peers: Peers, documents: list[str]) -> list[str]:
    """Queue ``documents`` again through their register; returns the ids of the jobs."""
    return [(await peers.call("metadata-service", "POST", f"/documents/{one}/jobs"))["job"] for one in documents]


def build(settings: Settings, connections: Connections) -> Service:
    """The service over the stores and peers that Consul knows."""
    database, link = Database(settings, connections.resolver), RedisLink(connections.resolver)
    jobs = Jobs(database)
    queue = WorkQueue(link, JOBS, "batch-processor", settings.node)
    indexer = Indexer(connections.peers, VectorSpace(connections.peers))
    processor = Processor(queue, jobs, indexer, int(settings.number("QUEUE_WARNING", 100)))

    async def post_jobs(request: Request) -> Response:
        documents = texts(await body_of(request), "documents", most=1000, longest=100)
        return Json({"jobs": await submit(connections.peers, documents)}, 202)

    async def list_jobs(request: Request) -> Response:
        return Json({"jobs": await jobs.latest(query_limit(request))})

    async def get_job(request: Request) -> Response:
        return Json(await jobs.get(request.path_params["id"]))

    return Service(
        settings,
        [
            Route("/jobs", post_jobs, methods=["POST"]),
            Route("/jobs", list_jobs),
            Route("/jobs/{id}", get_job),
        ],
        start=processor.start,
        background=[processor.work],
        figures=processor.figures,
        probes={"postgresql": database.probe, "redis": link.probe},
        close=[link.close, database.close],
    )


if __name__ == "__main__":
    run("batch-processor", build)
