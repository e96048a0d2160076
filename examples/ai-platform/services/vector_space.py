"""The vectors of the documents, as they are kept in the service ``qdrant``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .failures import Clash, Missing
from .peers import Peers

COLLECTION = "documents"
_PATH = f"/collections/{COLLECTION}"


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a document that a search found; ``score`` is the cosine to the question."""

    document: str
    text: str
    score: float


class VectorSpace:
    """The collection of this platform."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def ensure(self, dimensions: int) -> None:
        """Make the collection, for vectors of ``dimensions`` numbers, unless it exists."""
        try:
            await self._peers.call("qdrant", "GET", _PATH)
        except Missing:
            try:
                vectors = {"size": dimensions, "distance": "Cosine"}
                await self._peers.call("qdrant", "PUT", _PATH, {"vectors": vectors})
            except Clash:
                return  # another instance was faster

    async def put(self, points: list[dict[str, Any]]) -> None:
        """Write ``points`` (id, vector, payload), replacing those of the same id."""
        await self._peers.call("qdrant", "PUT", f"{_PATH}/points", {"points": points}, timeout_seconds=30.0)

    async def delete(self, ids: list[str]) -> None:
        """Remove the points of ``ids``."""
        await self._peers.call("qdrant", "POST", f"{_PATH}/points/delete", {"points": ids})

    async def search(self, vector: list[float], limit: int) -> list[Piece]:
        """The pieces nearest to ``vector``, best first."""
        answer = await self._peers.call("qdrant", "POST", f"{_PATH}/points/search", {"vector": vector, "limit": limit})
        return [Piece(hit["payload"]["document"], hit["payload"]["text"], hit["score"]) for hit in answer["result"]]

    async def count(self, document: str | None = None) -> int:
        """How many pieces there are, of one document or of all."""
        match = [{"key": "document", "match": {"value": document}}] if document else []
        answer = await self._peers.call("qdrant", "POST", f"{_PATH}/points/count", {"filter": {"must": match}})
        return int(answer["result"]["count"])
