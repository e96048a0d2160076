"""The vector store speaks Qdrant's HTTP API, as far as the platform needs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ai_platform  # noqa: F401 - makes the example importable
import httpx
import pytest
from services.application import Application, Connections
from services.settings import Settings
from services.vector_store import build

COSINE = {"vectors": {"size": 2, "distance": "Cosine"}}


@asynccontextmanager
async def store(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings("qdrant", port=1, data_dir=folder)
    connections = Connections(settings)
    app = Application(build(settings, connections))
    await app.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://qdrant") as client:
        yield client
    await app.close()
    await connections.close()


def points(*points: tuple[Any, list[float], dict[str, Any]]) -> dict[str, Any]:
    return {"points": [{"id": i, "vector": vector, "payload": payload} for i, vector, payload in points]}


async def test_points_are_found_counted_deleted_and_kept(tmp_path: Path) -> None:
    async with store(tmp_path) as client:
        assert (await client.put("/collections/docs", json=COSINE)).json()["result"] is True
        body = points((1, [1.0, 0.0], {"document": "a"}), ("b", [0.0, 2.0], {"document": "b"}))
        written = await client.put("/collections/docs/points", json=body)
        assert written.json()["result"] == {"status": "completed", "points": 2}
    async with store(tmp_path) as client:
        search = {"vector": [0.1, 1.0], "limit": 1}
        hits = (await client.post("/collections/docs/points/search", json=search)).json()["result"]
        assert [(hit["id"], hit["payload"]) for hit in hits] == [("b", {"document": "b"})]
        wanted = {"filter": {"must": [{"key": "document", "match": {"value": "a"}}]}}
        assert (await client.post("/collections/docs/points/count", json=wanted)).json()["result"] == {"count": 1}
        await client.post("/collections/docs/points/delete", json=wanted)
        await client.post("/collections/docs/points/delete", json={"points": ["b"]})
        described = (await client.get("/collections/docs")).json()["result"]
        assert described["points_count"] == 0
        assert described["config"]["params"] == COSINE


async def test_a_dropped_collection_is_gone_for_good(tmp_path: Path) -> None:
    async with store(tmp_path) as client:
        await client.put("/collections/docs", json=COSINE)
        assert (await client.delete("/collections/docs")).status_code == 200
    async with store(tmp_path) as client:
        assert (await client.get("/collections")).json()["result"] == {"collections": []}
        assert (await client.get("/collections/docs")).status_code == 404


async def test_a_collection_that_exists_is_not_made_again(tmp_path: Path) -> None:
    async with store(tmp_path) as client:
        await client.put("/collections/docs", json=COSINE)
        assert (await client.put("/collections/docs", json=COSINE)).status_code == 409


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/collections/x", {"vectors": {"size": 2, "distance": "Dot"}}),
        ("PUT", "/collections/x", {"vectors": {"size": 0, "distance": "Cosine"}}),
        ("PUT", "/collections/..", COSINE),
        ("PUT", "/collections/a%20b", COSINE),
        ("PUT", "/collections/docs/points", {"points": []}),
        ("PUT", "/collections/docs/points", points((True, [1.0, 0.0], {}))),
        ("PUT", "/collections/docs/points", points((1, [1.0, 0.0], {}), (2, [1.0], {}))),
        ("POST", "/collections/docs/points/search", {"vector": [1.0, 0.0], "limit": 0}),
        ("POST", "/collections/docs/points/search", {"vector": [1.0, 0.0], "filter": {"should": []}}),
        ("POST", "/collections/docs/points/count", {"filter": {"must": [{"key": "a"}]}}),
        ("POST", "/collections/docs/points/delete", {"points": "1"}),
    ],
)
async def test_a_wrong_request_is_rejected_whole(tmp_path: Path, method: str, path: str, body: object) -> None:
    async with store(tmp_path) as client:
        await client.put("/collections/docs", json=COSINE)
        answer = await client.request(method, path, json=body)
        assert answer.status_code in (400, 404)
        assert (await client.post("/collections/docs/points/count", json={})).json()["result"] == {"count": 0}
        assert (await client.get("/collections")).json()["result"] == {"collections": [{"name": "docs"}]}
