"""What docs/discovery.md shows is run, as it stands there, against a real Consul and real servers."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from consul_process import ConsulSpace
from service_processes import wait_for
from tiny_server import TinyServer, deregister, register

from citadel_consul.consul.instances import Instance

pytestmark = pytest.mark.consul

MANUAL = (Path(__file__).parents[2] / "docs" / "discovery.md").read_text()
WRITTEN = re.findall(r"(?<!-->\n)```python\n(.*?)```", MANUAL, re.DOTALL)
IMPORTS = "from citadel_consul.discovery import Registration, Resolver\n"

Names = dict[str, Any]


def snippet(mark: str) -> str:
    """The only one that contains ``mark``."""
    (found,) = [code for code in WRITTEN if mark in code]
    return str(found)


async def run(code: str, names: Names) -> None:
    """Run a snippet as the body of a coroutine, with and for these ``names``."""
    compiled = compile(code, "docs/discovery.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, names)
    if result is not None:
        await result


async def until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_for, condition, what)


def registered(consul: ConsulSpace, service: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = consul.request("GET", f"/v1/health/service/{service}?passing")
    return found


@pytest.fixture(autouse=True)
def consul_of_the_environment(consul: ConsulSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", consul.address)


async def test_a_client_as_in_the_first_example(consul: ConsulSpace) -> None:
    names: Names = {}
    async with TinyServer("here").listening() as server:
        register(consul, "embedding-service", server.port)
        await run(snippet("client.get("), names)
    assert names["answer"].text == "here"
    assert server.requests == ["GET /models HTTP/1.1"]


async def test_an_application_registers_itself_by_its_lifespan(consul: ConsulSpace) -> None:
    names: Names = {}
    async with TinyServer("thumbnails").listening() as server:
        await run(snippet("lifespan=").replace("8090", str(server.port)), names)
        app = names["app"]
        async with app.router.lifespan_context(app):
            await until(lambda: bool(registered(consul, "thumbnails")), "the application to be registered")
            (found,) = registered(consul, "thumbnails")
    assert found["Service"]["Port"] == server.port
    assert "canary" in found["Service"]["Tags"]
    assert found["Service"]["Meta"]["version"] == "1.4.0"
    assert registered(consul, "thumbnails") == []


async def test_anything_else_registers_itself_by_a_block(consul: ConsulSpace) -> None:
    async def queue_length() -> int:
        return 2000  # too long: it warns

    async def serve() -> None:
        await until(lambda: bool(statuses()), "the service to be registered")
        seen.extend(statuses())

    def statuses() -> list[str]:
        checks = consul.request("GET", "/v1/health/checks/thumbnails")
        return [check["Status"] for check in checks]

    seen: list[str] = []
    async with TinyServer("thumbnails").listening() as server:
        code = IMPORTS + snippet("queue_length").replace("8090", str(server.port))
        await run(code, {"queue_length": queue_length, "serve": serve})
    assert seen == ["warning"]


async def test_a_resolver_without_httpx(consul: ConsulSpace) -> None:
    names: Names = {}
    register(consul, "redis", 6379)
    register(consul, "redis", 6380)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(run(IMPORTS + snippet('resolver.choose("redis")'), names))
        await until(lambda: "one" in names, "an instance to be chosen")
        deregister(consul, "redis", 6379)
        await until(lambda: ports(names["everybody"]) == [6380], "the change to be seen")
        running.cancel()
    assert names["one"].port in (6379, 6380)


def ports(instances: tuple[Instance, ...]) -> list[int]:
    return sorted(instance.port for instance in instances)


async def test_the_prepared_query_serves_every_service(consul: ConsulSpace) -> None:
    (body,) = re.findall(r"curl -X POST \S+/v1/query -d '(.*?)'\n", MANUAL, re.DOTALL)
    query = consul.request("POST", "/v1/query", json.loads(body))
    try:
        register(consul, "redis", 6379)
        await until(lambda: ports_of(consul, "redis") == [6379], "the query to find an instance")
        assert ports_of(consul, "nobody") == []
    finally:
        consul.request("DELETE", f"/v1/query/{query['ID']}")


def ports_of(consul: ConsulSpace, query: str) -> list[int]:
    nodes = consul.request("GET", f"/v1/query/{query}/execute")["Nodes"] or []
    return [node["Service"]["Port"] for node in nodes]


def test_every_snippet_is_one_of_those_that_were_run() -> None:
    marks = ["client.get(", "lifespan=", "queue_length", 'resolver.choose("redis")']
    assert [sum(mark in code for mark in marks) for code in WRITTEN] == [1] * len(marks)
