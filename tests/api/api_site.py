"""A site for tests of the API: the stack of the site's document, run by a real orchestrator and a real node agent.

The services are processes that do nothing but listen; everything else is what runs in production, the server on its
socket included.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import urllib.error
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema
from consul_process import ConsulSpace
from fastapi import FastAPI

from citadel_consul.api.app import create_app
from citadel_consul.cli.assembly import Place, node_agent, run_orchestrator
from citadel_consul.config.settings import load_settings
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.model import Check, CheckKind, Edge, OnRecovery, ProcessBackend, ServiceSpec
from citadel_consul.core.snapshot import Defaults
from citadel_consul.orchestrator.orchestrator import Orchestrator, OrchestratorConfig
from citadel_consul.store import documents
from citadel_consul.store.keys import Keys

NODE = "n1"
API = "/api/v1/orchestrator"
DEFAULTS = Defaults(
    start_timeout_seconds=20.0, stop_timeout_seconds=5.0, startup_timeout_seconds=60.0, shutdown_timeout_seconds=60.0
)
TYPES: Mapping[str, tuple[str, bool]] = {
    "qdrant": ("database", True),
    "embedding-service": ("ai_service", True),
    "api-gateway": ("gateway", True),
    "redis": ("cache", True),
    "postgresql": ("database", True),
    "batch-processor": ("processing", False),
}
EDGES = (
    Edge("embedding-service", "qdrant", on_recovery=OnRecovery.RESTART),
    Edge("api-gateway", "qdrant"),
    Edge("api-gateway", "embedding-service"),
    Edge("api-gateway", "redis"),
    Edge("api-gateway", "postgresql"),
    Edge("batch-processor", "redis"),
    Edge("batch-processor", "postgresql"),
)
_LISTEN = (
    "import socket, sys\n"
    "listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
    "while True:\n    listener.accept()[0].close()\n"
)


def free_ports(count: int) -> list[int]:
    """Ports that are free at this moment, each another one."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def specs(ports: Iterable[int]) -> dict[str, ServiceSpec]:
    """The six services of the site's document; their endpoints are templates, as a stack of many nodes has them."""
    return {
        name: ServiceSpec(
            name=name,
            type=kind,
            nodes=(NODE,),
            backend=ProcessBackend(command=(sys.executable, "-S", "-E", "-c", _LISTEN, str(port))),
            critical=critical,
            endpoint=f"tcp://{{{{ node.address }}}}:{port}",
            checks=(Check("tcp", CheckKind.TCP, f"{{{{ node.address }}}}:{port}"),),
        )
        for port, (name, (kind, critical)) in zip(ports, TYPES.items(), strict=True)
    }


async def write_stack(client: ConsulClient, keys: Keys, services: Iterable[ServiceSpec], edges: Iterable[Edge]) -> None:
    """Write specs and edges, as ``citadel apply`` does."""
    for service in services:
        await client.kv_put(keys.spec(service.name), documents.SPEC.encode(service))
    for edge in edges:
        await client.kv_put(keys.edge(edge.service, edge.dependency), documents.EDGE.encode(edge))


def orchestrator_of(client: ConsulClient, stack: str, api: str = "127.0.0.1:8000") -> Orchestrator:
    """An orchestrator that does not run: enough for an API that only reads and writes Consul."""
    return Orchestrator(client, OrchestratorConfig(stack, NODE, api, DEFAULTS))


def asking(app: FastAPI, headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
    """A client of ``app`` that speaks ASGI to it, without a socket."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", headers=headers, timeout=30.0)


@dataclass
class QuietSite:
    """The stack of the site's document in the KV store, and an API that nobody leads behind."""

    space: ConsulSpace
    consul: ConsulClient
    keys: Keys
    app: FastAPI
    http: httpx.AsyncClient


@asynccontextmanager
async def quiet_site(space: ConsulSpace) -> AsyncIterator[QuietSite]:
    """An API without a leader: what it reads and writes is in a real Consul, and nobody acts on it."""
    async with ConsulClient(parse_address(space.address)) as client:
        keys = Keys(space.stack)
        await write_stack(client, keys, specs(range(21000, 21000 + len(TYPES))).values(), EDGES)
        app = create_app(client, orchestrator_of(client, space.stack))
        async with asking(app) as http:
            yield QuietSite(space, client, keys, app, http)


@dataclass
class LiveSite:
    """A running site and a client of its API on a real socket."""

    url: str
    http: httpx.AsyncClient
    consul: ConsulClient
    keys: Keys
    ports: Mapping[str, int]


@asynccontextmanager
async def live_site(consul_address: str, stack: str, state: Path) -> AsyncIterator[LiveSite]:
    """Orchestrator with its API, node agent and stack; at the end everything is stopped through the API, in order."""
    keys, ports = Keys(stack), free_ports(len(TYPES) + 1)
    settings = load_settings({"api.bind": f"127.0.0.1:{ports[-1]}", "state_dir": str(state)}, {})
    place = Place(stack, NODE, "127.0.0.1", consul_address)
    url = f"http://127.0.0.1:{ports[-1]}"
    async with (
        ConsulClient(parse_address(consul_address)) as client,
        httpx.AsyncClient(base_url=url, timeout=60.0, trust_env=False) as http,
        node_agent(client, settings, place) as agent,
    ):
        await write_stack(client, keys, specs(ports[:-1]).values(), EDGES)
        async with asyncio.TaskGroup() as group:
            leading = group.create_task(run_orchestrator(client, settings, place))
            watching = group.create_task(agent.run())
            await agent.ready.wait()
            await _until_answering(http)
            try:
                yield LiveSite(url, http, client, keys, dict(zip(TYPES, ports, strict=False)))
            finally:
                await http.post(f"{API}/shutdown", json={"services": ["all"]})
                watching.cancel()
                leading.cancel()


async def _until_answering(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await http.get("/livez")
            except httpx.TransportError:
                await asyncio.sleep(0.02)
            else:
                return


def validated(answer: object, schema: Mapping[str, Any]) -> Any:
    """``answer``, which has to satisfy ``schema``."""
    jsonschema.validate(answer, schema, cls=jsonschema.Draft202012Validator)
    return answer


def keys_in(consul: ConsulSpace) -> dict[str, int]:
    """Every key of the test's stack with its ModifyIndex: what to compare to see that nothing was written."""
    try:
        entries = consul.request("GET", f"/v1/kv/{consul.prefix}?recurse")
    except urllib.error.HTTPError as error:
        with error:
            return {}
    return {entry["Key"]: entry["ModifyIndex"] for entry in entries}
