"""Service ``dashboard``: shows what the platform measures about itself.

``GET /`` is a page, ``/api/overview`` its data, ``/metrics`` the same for Prometheus. Redis and postgres have no
HTTP of their own, so ``/health/redis`` and ``/health/postgresql`` ask them and answer in the form of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, LiteralString

import httpx
import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from .application import Connections, Service, run
from .database import Database
from .failures import Failure, Missing, Unavailable
from .payload import Json
from .redis_link import RedisLink
from .settings import Settings

TAG = "ai-platform"
_PAGE = Path(__file__).with_name("dashboard.html")
_POSTGRES: LiteralString = """
SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS active_connections,
    round(pg_database_size(current_database()) / 1e6, 2)::float AS database_size_mb,
    d.xact_commit AS transactions, d.deadlocks,
    extract(epoch FROM now() - pg_postmaster_start_time())::float AS uptime_seconds
FROM pg_stat_database d WHERE d.datname = current_database()
"""
Figures = dict[str, Any]


class Stores:
    """The figures of the two stores, in the form of ``/health``."""

    def __init__(self, database: Database, link: RedisLink) -> None:
        self._database = database
        self._link = link
        self._ask: dict[str, Callable[[], Awaitable[Figures]]] = {"postgresql": self._postgres, "redis": self._redis}

    def __contains__(self, name: str) -> bool:
        return name in self._ask

    async def figures(self, name: str) -> Figures:
        """What ``name`` says of itself. Raises Missing for any other service, Unavailable when it does not answer."""
        if name not in self._ask:
            raise Missing(f"{name} is not asked here")
        return {"status": "ok", "service": name, **await self._ask[name]()}

    async def _postgres(self) -> Figures:
        return (await self._database.rows(_POSTGRES))[0]

    async def _redis(self) -> Figures:
        async with self._link.client() as client:
            info = await client.info()
        hits, misses = info["keyspace_hits"], info["keyspace_misses"]
        return {
            "memory_usage_mb": round(info["used_memory"] / 1e6, 2),
            "connected_clients": info["connected_clients"],
            "request_rate": info["instantaneous_ops_per_sec"],
            "keys": sum(space["keys"] for name, space in info.items() if name.startswith("db")),
            "cache_hit_percent": round(100.0 * hits / (hits + misses), 1) if hits + misses else 0.0,
            "uptime_seconds": info["uptime_in_seconds"],
        }


class Overview:
    """What all services of the platform say of themselves."""

    def __init__(self, settings: Settings, connections: Connections, stores: Stores) -> None:
        self._settings = settings
        self._connections = connections
        self._stores = stores

    async def services(self) -> list[Figures]:
        """One entry for each service that Consul knows, in the order of their names."""
        return list(await asyncio.gather(*(self._one(name) for name in await self._names())))

    async def _names(self) -> list[str]:
        """The services that carry the platform's tag. Raises Unavailable while Consul does not answer."""
        url, token = self._settings.consul_url, self._settings.consul_token
        headers = {"X-Consul-Token": token} if token else {}
        try:
            response = await self._connections.http.get(f"{url}/v1/catalog/services", headers=headers, timeout=2.0)
            services = response.raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise Unavailable("Consul does not answer") from error
        return sorted(name for name, tags in services.items() if TAG in tags)

    async def usage(self) -> list[Figures]:
        """What each client used; nothing while the event collector is away."""
        try:
            answer: dict[str, list[Figures]] = await self._connections.peers.call("event-collector", "GET", "/usage")
        except Unavailable:
            return []
        return answer["usage"]

    async def _one(self, name: str) -> Figures:
        try:
            if name in self._stores:
                return await self._stores.figures(name)
            response = await self._connections.http.get(
                f"http://{name}.consul/health", timeout=2.0, extensions={"deadline": 2.0}
            )
            found: Figures = orjson.loads(response.content)
        except (Failure, httpx.HTTPError, ValueError) as error:
            return {"status": "unreachable", "service": name, "reasons": [str(error)]}
        return found


def exposition(services: list[Figures]) -> str:
    """The numbers of ``services`` in the text format of Prometheus."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    up = Gauge("ai_platform_up", "1 when the service answers and is not degraded", ["service"], registry=registry)
    gauges: dict[str, Gauge] = {}
    for service in services:
        up.labels(service["service"]).set(service["status"] == "ok")
        for name, value in service.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                if name not in gauges:
                    about = f"{name.replace('_', ' ')}, as the service reports it"
                    gauges[name] = Gauge(f"ai_platform_{name}", about, ["service"], registry=registry)
                gauges[name].labels(service["service"]).set(value)
    return generate_latest(registry).decode()


def build(settings: Settings, connections: Connections) -> Service:
    """The service over everything that Consul knows of the platform."""
    database, link = Database(settings, connections.resolver, size=2), RedisLink(connections.resolver)
    stores = Stores(database, link)
    overview = Overview(settings, connections, stores)

    async def page(_: Request) -> Response:
        return FileResponse(_PAGE, media_type="text/html")

    async def data(_: Request) -> Response:
        services, usage = await asyncio.gather(overview.services(), overview.usage())
        return Json({"services": services, "usage": usage})

    async def metrics(_: Request) -> Response:
        return Response(exposition(await overview.services()), media_type="text/plain; version=0.0.4")

    async def store(request: Request) -> Response:
        return Json(await stores.figures(request.path_params["name"]))

    return Service(
        settings,
        [
            Route("/", page),
            Route("/api/overview", data),
            Route("/metrics", metrics),
            Route("/health/{name}", store),
        ],
        probes={"postgresql": database.probe, "redis": link.probe},
        close=[link.close, database.close],
    )


if __name__ == "__main__":
    run("dashboard", build)
