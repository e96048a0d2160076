"""Service ``request-router``: knows which services answer which kind of request, and in which order.

``POST /route {"kind": "ask", "question": …}``; ``GET /routes`` lists the kinds. Where a service has several
instances, the one with the fewest calls under way is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .application import Connections, Service, run
from .failures import Rejected
from .payload import Json, body_of, text, texts, whole
from .peers import Peers
from .settings import Settings
from .vector_space import Piece, VectorSpace

Body = dict[str, Any]
Handler = Callable[[Body], Awaitable[Body]]

MODELS = "external-model-integrations"


def sources(pieces: list[Piece], titles: dict[str, str], used: list[str]) -> list[Body]:
    """The documents of ``pieces``, best first, each once; ``used`` says whether the answer quotes it."""
    found: dict[str, Body] = {}
    for piece in pieces:
        source = found.setdefault(
            piece.document,
            {
                "document": piece.document,
                "title": titles.get(piece.document),
                "score": round(piece.score, 4),
                "used": False,
            },
        )
        source["used"] |= any(sentence in piece.text for sentence in used)
    return list(found.values())


class Router:
    """The kinds of requests."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._space = VectorSpace(peers)
        self._kinds: dict[str, Handler] = {
            "ask": self._ask,
            "search": self._search,
            "embed": self._embed,
            "summarise": self._summarise,
            "put-document": self._put_document,
            "get-document": self._get_document,
        }
        self.routed: Counter[str] = Counter()

    @property
    def kinds(self) -> list[str]:
        """The kinds of requests that are known."""
        return sorted(self._kinds)

    async def route(self, body: Body) -> Body:
        """Have the request in ``body`` answered by the services of its kind."""
        kind = text(body, "kind")
        handler = self._kinds.get(kind)
        if handler is None:
            raise Rejected(f"kind: {kind!r} is unknown, there are {', '.join(self.kinds)}")
        self.routed[kind] += 1
        return await handler(body)

    async def _ask(self, body: Body) -> Body:
        question = text(body, "question", longest=2000)
        pieces = await self._nearest(question, whole(body, "limit", default=5, low=1, high=20))
        if not pieces:
            return {"answer": "There are no documents yet.", "confidence": 0.0, "model": None, "sources": []}
        documents = list(dict.fromkeys(piece.document for piece in pieces))
        titles = await self._peers.call("metadata-service", "POST", "/documents/titles", {"ids": documents})
        wish = {"task": "answer", "question": question, "texts": [piece.text for piece in pieces]}
        wish["model"] = text(body, "model", default="auto")
        completion = await self._peers.call(MODELS, "POST", "/complete", wish, timeout_seconds=15.0)
        return {
            "answer": completion["text"],
            "confidence": completion["confidence"],
            "model": completion["model"],
            "sources": sources(pieces, titles["titles"], completion["used"]),
        }

    async def _search(self, body: Body) -> Body:
        query, limit = text(body, "query", longest=2000), whole(body, "limit", default=10, low=1, high=50)
        pieces = await self._nearest(query, limit)
        return {"hits": [{"document": p.document, "text": p.text, "score": round(p.score, 4)} for p in pieces]}

    async def _nearest(self, query: str, limit: int) -> list[Piece]:
        embedded = await self._peers.call("embedding-service", "POST", "/embed", {"texts": [query]})
        vector = embedded["vectors"][0]
        # A text without a single word has no direction, so nothing is near to it.
        return await self._space.search(vector, limit) if any(vector) else []

    async def _embed(self, body: Body) -> Body:
        wanted = {"texts": texts(body, "texts", most=256)}
        answer: Body = await self._peers.call("embedding-service", "POST", "/embed", wanted)
        return answer

    async def _summarise(self, body: Body) -> Body:
        wish = {"task": "summarise", "texts": [text(body, "text")], "model": text(body, "model", default="auto")}
        completion = await self._peers.call(MODELS, "POST", "/complete", wish, timeout_seconds=15.0)
        return {"summary": completion["text"], "model": completion["model"]}

    async def _put_document(self, body: Body) -> Body:
        answer: Body = await self._peers.call("metadata-service", "PUT", "/documents", body)
        return answer

    async def _get_document(self, body: Body) -> Body:
        path = f"/documents/{quote(text(body, 'id'), safe='')}"
        answer: Body = await self._peers.call("metadata-service", "GET", path)
        return answer


def build(settings: Settings, connections: Connections) -> Service:
    """The service over the peers that Consul knows."""
    router = Router(connections.peers)

    async def route(request: Request) -> Response:
        return Json(await router.route(await body_of(request)))

    async def kinds(_: Request) -> Response:
        return Json({"kinds": router.kinds})

    async def figures() -> dict[str, Any]:
        return {"routed": dict(router.routed)}

    return Service(settings, [Route("/route", route, methods=["POST"]), Route("/routes", kinds)], figures=figures)


if __name__ == "__main__":
    run("request-router", build)
