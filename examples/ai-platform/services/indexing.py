"""Indexing: documents → pieces → vectors → the vector store → a note in the register."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .chunks import chunks, point_id
from .failures import Clash, Rejected
from .peers import Peers
from .vector_space import VectorSpace

log = logging.getLogger(__name__)

_TEXTS_A_CALL = 128
_REGISTER = "metadata-service"


@dataclass(frozen=True, slots=True)
class Work:
    """A job: index one document."""

    job: str
    document: str


@dataclass(frozen=True, slots=True)
class Result:
    """How a job ended; ``error`` is empty when it went well."""

    job: str
    chunks: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Loaded:
    work: Work
    document: dict[str, Any]
    pieces: list[str]


class Indexer:
    """Indexes through the peers that Consul knows."""

    def __init__(self, peers: Peers, space: VectorSpace) -> None:
        self._peers = peers
        self._space = space

    async def index(self, works: Sequence[Work]) -> list[Result]:
        """Index the documents of ``works`` together. Raises Unavailable when a service is away: nothing is lost."""
        loaded = await asyncio.gather(*(self._load(work) for work in works))
        failed = [one for one in loaded if isinstance(one, Result)]
        good = [one for one in loaded if isinstance(one, _Loaded)]
        try:
            await self._store(good)
        except Rejected as rejected:
            return [*failed, *await self._one_by_one(good, rejected)]
        return [*failed, *[await self._settle(one) for one in good]]

    async def repair(self) -> None:
        """Queue again every document whose vectors the store has lost (a replaced disk, say)."""
        documents = (await self._peers.call(_REGISTER, "GET", "/documents?limit=10000"))["documents"]
        indexed = [document for document in documents if document["status"] == "indexed"]
        if sum(document["chunks"] for document in indexed) == await self._space.count():
            return
        for document in indexed:
            if await self._space.count(document["id"]) != document["chunks"]:
                log.warning("vectors are missing", extra={"fields": {"document": document["id"]}})
                await self._peers.call(_REGISTER, "POST", f"/documents/{quote(document['id'], safe='')}/jobs")

    async def _load(self, work: Work) -> _Loaded | Result:
        try:
            document = await self._peers.call(_REGISTER, "GET", f"/documents/{quote(work.document, safe='')}")
        except Rejected as rejected:
            return Result(work.job, error=rejected.detail)
        return _Loaded(work, document, chunks(document["text"]))

    async def _one_by_one(self, loaded: list[_Loaded], rejected: Rejected) -> list[Result]:
        """Find the document for which a batch was rejected, so that the others get through."""
        if len(loaded) == 1:
            await self._settle(loaded[0], "failed")
            return [Result(loaded[0].work.job, error=rejected.detail)]
        return [result for one in loaded for result in await self.index([one.work])]

    async def _store(self, loaded: Sequence[_Loaded]) -> None:
        pieces = [(one, number, piece) for one in loaded for number, piece in enumerate(one.pieces)]
        for begin in range(0, len(pieces), _TEXTS_A_CALL):
            part = pieces[begin : begin + _TEXTS_A_CALL]
            # Embedded with the title, a piece is found by what its document is about as well.
            wanted = {"texts": [f"{one.document['title']}. {piece}" for one, _, piece in part]}
            answer = await self._peers.call("embedding-service", "POST", "/embed", wanted, timeout_seconds=30.0)
            points = [
                {
                    "id": point_id(one.work.document, number),
                    "vector": vector,
                    "payload": {"document": one.work.document, "chunk": number, "text": piece},
                }
                for (one, number, piece), vector in zip(part, answer["vectors"], strict=True)
            ]
            await self._space.put(points)
        for one in loaded:
            await self._drop_old_pieces(one)

    async def _drop_old_pieces(self, one: _Loaded) -> None:
        """A document that became shorter leaves pieces of its former self."""
        left = [point_id(one.work.document, number) for number in range(len(one.pieces), one.document["chunks"])]
        if left:
            await self._space.delete(left)

    async def _settle(self, one: _Loaded, status: str = "indexed") -> Result:
        note = {"status": status, "sha256": one.document["sha256"], "chunks": len(one.pieces)}
        try:
            await self._peers.call(_REGISTER, "PUT", f"/documents/{quote(one.work.document, safe='')}/status", note)
        except Clash:
            # The document was changed while it was being indexed; the change has a job of its own.
            log.info("superseded", extra={"fields": {"document": one.work.document}})
        return Result(one.work.job, chunks=len(one.pieces))
