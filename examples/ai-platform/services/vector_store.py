"""Service ``qdrant``: a small vector store that speaks the part of Qdrant's HTTP API this platform uses.

========  ======================================  ==================================================
method    path                                    body
========  ======================================  ==================================================
GET       /collections
PUT       /collections/{name}                     {"vectors": {"size": 384, "distance": "Cosine"}}
GET       /collections/{name}
DELETE    /collections/{name}
PUT       /collections/{name}/points              {"points": [{"id", "vector", "payload"}]}
POST      /collections/{name}/points/search       {"vector", "limit", "filter", "with_payload"}
POST      /collections/{name}/points/count        {"filter"}
POST      /collections/{name}/points/delete       {"points": [ids]} or {"filter"}
========  ======================================  ==================================================

Answers carry Qdrant's envelope ``{"result", "status", "time"}``. A filter is a list of equalities that all must hold:
``{"must": [{"key": …, "match": {"value": …}}]}``.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .application import Connections, Service, run
from .collection import Collection, Point, PointId, normalised
from .failures import Clash, Missing, Rejected
from .payload import Json, body_of, whole
from .settings import Settings

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST_POINTS = 1000


def conditions(body: dict[str, Any]) -> dict[str, Any]:
    """The filter of ``body`` as field → value. Raises Rejected for what this store cannot filter by."""
    raw = body.get("filter") or {}
    try:
        if set(raw) - {"must"}:
            raise Rejected("filter: only 'must' is known")
        return {clause["key"]: clause["match"]["value"] for clause in raw.get("must", [])}
    except (TypeError, KeyError, AttributeError) as error:
        raise Rejected('filter: {"must": [{"key": …, "match": {"value": …}}]} is required') from error


def point_ids(value: Any) -> list[PointId]:
    """The point ids in ``value``: whole numbers or texts. Raises Rejected otherwise."""
    if not isinstance(value, list) or not all(_is_id(item) for item in value):
        raise Rejected("points: a list of ids is required")
    return value


def _is_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def points_of(body: dict[str, Any], size: int) -> list[Point]:
    """The points in ``body``. Raises Rejected, before anything is written, if one of them is wrong."""
    raw = body.get("points")
    if not isinstance(raw, list) or not 0 < len(raw) <= _MOST_POINTS:
        raise Rejected(f"points: a list of 1 to {_MOST_POINTS} points is required")
    return [_point(item, size) for item in raw]


def _point(item: Any, size: int) -> Point:
    if not isinstance(item, dict) or not _is_id(item.get("id")):
        raise Rejected("points: every point needs an id that is a whole number or a text")
    payload = item.get("payload") or {}
    if not isinstance(payload, dict):
        raise Rejected("payload: an object is required")
    return Point(item["id"], normalised(item.get("vector", []), size), payload)


class VectorStore:
    """All collections below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "collections"
        self._collections: dict[str, Collection] = {}
        self._writing = asyncio.Lock()

    async def open(self) -> None:
        """Load every collection from disk."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for config in sorted(self._folder.glob("*/config.json")):
            size = orjson.loads(config.read_bytes())["vectors"]["size"]
            self._collections[config.parent.name] = await asyncio.to_thread(Collection, config.parent, size)

    async def close(self) -> None:
        """Wait for a write under way, then close every log."""
        async with self._writing:
            for collection in self._collections.values():
                collection.close()

    async def figures(self) -> dict[str, Any]:
        """What the store holds."""
        held = self._collections.values()
        return {
            "collections": len(held),
            "points": sum(len(collection) for collection in held),
            "disk_usage_mb": round(sum(collection.log_bytes for collection in held) / 1e6, 3),
        }

    def names(self) -> list[str]:
        """The names of the collections."""
        return sorted(self._collections)

    def get(self, name: str) -> Collection:
        """The collection ``name``. Raises Missing."""
        if name not in self._collections:
            raise Missing(f"collection {name} does not exist")
        return self._collections[name]

    async def create(self, name: str, body: dict[str, Any]) -> None:
        """Create a collection. Raises Clash when it exists, as Qdrant does."""
        vectors = body.get("vectors")
        if not _NAME.fullmatch(name) or not isinstance(vectors, dict) or vectors.get("distance") != "Cosine":
            raise Rejected('a name and {"vectors": {"size": …, "distance": "Cosine"}} are required')
        size = whole(vectors, "size", default=0, low=1, high=65536)
        async with self._writing:
            if name in self._collections:
                raise Clash(f"collection {name} exists already")
            folder = self._folder / name
            collection = await asyncio.to_thread(Collection, folder, size)
            (folder / "config.json").write_bytes(orjson.dumps({"vectors": {"size": size, "distance": "Cosine"}}))
            self._collections[name] = collection

    async def drop(self, name: str) -> None:
        """Delete a collection and its files."""
        async with self._writing:
            self.get(name).close()
            del self._collections[name]
            await asyncio.to_thread(shutil.rmtree, self._folder / name)

    async def upsert(self, name: str, body: dict[str, Any]) -> int:
        """Write the points in ``body``; returns how many."""
        collection = self.get(name)
        points = points_of(body, collection.size)
        async with self._writing:
            await asyncio.to_thread(collection.upsert, points)
        return len(points)

    async def delete(self, name: str, body: dict[str, Any]) -> int:
        """Delete the points that ``body`` names by ids or by filter; returns how many existed."""
        collection = self.get(name)
        async with self._writing:
            by_filter = "filter" in body
            ids = collection.ids_where(conditions(body)) if by_filter else point_ids(body.get("points"))
            return await asyncio.to_thread(collection.delete, ids)


class Api:
    """The HTTP face of the store."""

    def __init__(self, store: VectorStore) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        """Every path but /health."""
        base = "/collections/{name}"
        return [
            Route("/collections", self.list_all),
            Route(base, self.create, methods=["PUT"]),
            Route(base, self.describe, methods=["GET"]),
            Route(base, self.drop, methods=["DELETE"]),
            Route(f"{base}/points", self.upsert, methods=["PUT"]),
            Route(f"{base}/points/search", self.search, methods=["POST"]),
            Route(f"{base}/points/count", self.count, methods=["POST"]),
            Route(f"{base}/points/delete", self.delete, methods=["POST"]),
        ]

    async def list_all(self, _: Request) -> Response:
        return _answer({"collections": [{"name": name} for name in self._store.names()]}, perf_counter())

    async def create(self, request: Request) -> Response:
        begun = perf_counter()
        await self._store.create(request.path_params["name"], await body_of(request))
        return _answer(result=True, begun=begun)

    async def describe(self, request: Request) -> Response:
        collection = self._store.get(request.path_params["name"])
        params = {"vectors": {"size": collection.size, "distance": "Cosine"}}
        return _answer(
            {"status": "green", "points_count": len(collection), "config": {"params": params}}, perf_counter()
        )

    async def drop(self, request: Request) -> Response:
        begun = perf_counter()
        await self._store.drop(request.path_params["name"])
        return _answer(result=True, begun=begun)

    async def upsert(self, request: Request) -> Response:
        begun = perf_counter()
        count = await self._store.upsert(request.path_params["name"], await body_of(request))
        return _answer({"status": "completed", "points": count}, begun)

    async def search(self, request: Request) -> Response:
        begun = perf_counter()
        body = await body_of(request)
        limit = whole(body, "limit", default=10, low=1, high=100)
        collection = self._store.get(request.path_params["name"])
        hits = collection.search(body.get("vector", []), limit, conditions(body))
        return _answer([asdict(hit) for hit in hits], begun)

    async def count(self, request: Request) -> Response:
        begun = perf_counter()
        body = await body_of(request)
        found = self._store.get(request.path_params["name"]).ids_where(conditions(body))
        return _answer({"count": len(found)}, begun)

    async def delete(self, request: Request) -> Response:
        begun = perf_counter()
        count = await self._store.delete(request.path_params["name"], await body_of(request))
        return _answer({"status": "completed", "points": count}, begun)


def _answer(result: object, begun: float) -> Json:
    return Json({"result": result, "status": "ok", "time": round(perf_counter() - begun, 6)})


def build(settings: Settings, _: Connections) -> Service:
    """The service over the collections in DATA_DIR."""
    store = VectorStore(settings.data_dir)
    return Service(settings, Api(store).routes(), start=store.open, figures=store.figures, close=[store.close])


if __name__ == "__main__":
    run("qdrant", build)
