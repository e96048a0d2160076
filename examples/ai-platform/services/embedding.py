"""Service ``embedding-service``: ``POST /embed {"texts": […]}`` → one vector for each text.

It owns the vector space, so it makes the collection in the vector store before it is ready. Vectors are cached in
redis for a day; without redis everything is computed, and the service says that it is degraded.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .application import Connections, Service, run
from .embedder import DIMENSIONS, MODEL, embed
from .failures import Unavailable
from .payload import Json, body_of, texts
from .redis_link import RedisLink
from .settings import Settings
from .vector_space import VectorSpace

_KEPT_SECONDS = 24 * 3600
_MOST_TEXTS = 256


def _key(text: str) -> str:
    return f"ai-platform:embedding:{MODEL}:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def _compute(wanted: list[str]) -> list[bytes]:
    return [embed(text).astype("<f4").tobytes() for text in wanted]


class Embeddings:
    """Vectors of texts, computed once."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self.hits = 0
        self.computed = 0

    async def vectors(self, wanted: list[str]) -> list[bytes]:
        """The vector of each text, as little-endian 32-bit floats."""
        keys = [_key(text) for text in wanted]
        cached = await self._cached(keys)
        missing = [index for index, vector in enumerate(cached) if vector is None]
        fresh = await asyncio.to_thread(_compute, [wanted[index] for index in missing])
        self.hits += len(wanted) - len(missing)
        self.computed += len(missing)
        found = dict(zip(missing, fresh, strict=True))
        if found:
            await self._keep({keys[index]: vector for index, vector in found.items()})
        return [found[index] if vector is None else vector for index, vector in enumerate(cached)]

    async def _cached(self, keys: list[str]) -> list[bytes | None]:
        try:
            async with self._link.client() as client:
                return [value if isinstance(value, bytes) else None for value in await client.mget(keys)]
        except Unavailable:
            return [None] * len(keys)

    async def _keep(self, vectors: dict[str, bytes]) -> None:
        try:
            async with self._link.client() as client, client.pipeline(transaction=False) as pipe:
                for key, vector in vectors.items():
                    pipe.set(key, vector, ex=_KEPT_SECONDS)
                await pipe.execute()
        except Unavailable:
            return  # a cache: the next request computes again

    async def figures(self) -> dict[str, Any]:
        """How much work the cache saved since the start."""
        total = self.hits + self.computed
        rate = round(100.0 * self.hits / total, 1) if total else 0.0
        return {"embeddings_computed": self.computed, "cache_hits": self.hits, "cache_hit_percent": rate}


def build(settings: Settings, connections: Connections) -> Service:
    """The service over the redis and the vector store that Consul knows."""
    link = RedisLink(connections.resolver)
    embeddings = Embeddings(link)

    async def answer(request: Request) -> Response:
        wanted = texts(await body_of(request), "texts", most=_MOST_TEXTS)
        vectors = [np.frombuffer(raw, dtype="<f4") for raw in await embeddings.vectors(wanted)]
        return Json({"model": MODEL, "dimensions": DIMENSIONS, "vectors": vectors})

    return Service(
        settings,
        [Route("/embed", answer, methods=["POST"])],
        start=lambda: VectorSpace(connections.peers).ensure(DIMENSIONS),
        figures=embeddings.figures,
        probes={"redis": link.probe},
        close=[link.close],
    )


if __name__ == "__main__":
    run("embedding-service", build)
