"""What stands in for the Consul client agents of many nodes: one for each, in the process of the node agents.

Two hundred real client agents gossip and poll more than two cores can take. What a client agent does for a node agent
is little: it keeps that node's services and checks, tells the servers of each change (anti-entropy, a catalog write),
and passes on all else. That is done here, against a real server, so that the catalog has 200 nodes and each watch of a
node's health sees its own alone. Left out are gossip (no node has a serfHealth check), the running of checks by Consul,
and the run-out of TTL checks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import httpx
import orjson

from citadel_consul.consul.address import ConsulAddress
from citadel_consul.consul.connection import ConnectionPool, Target
from citadel_consul.consul.ports import LOOPBACK

_AGENT = "/v1/agent/"
Document = dict[str, Any]


class ClientAgent(httpx.AsyncBaseTransport):
    """The client agent of ``node``. ``on_answer`` is called with the path of each answer to a GET that it passed on."""

    def __init__(self, server: ConsulAddress, node: str, on_answer: Callable[[str], None] = lambda _: None) -> None:
        self._pool = ConnectionPool(Target(server.host, server.port))
        self._base = server.base_url
        self._node = node
        self._on_answer = on_answer
        self._services: dict[str, Document] = {}
        self._checks: dict[str, Document] = {}

    async def aclose(self) -> None:
        await self._pool.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = unquote(request.url.path)
        if path == "/v1/session/create":
            return await self._create_session(request)
        if path.startswith(_AGENT):
            return await self._answer(path.removeprefix(_AGENT), request)
        response = await self._pool.handle_async_request(request)
        if request.method == "GET":
            self._on_answer(path)
        return response

    async def _create_session(self, request: httpx.Request) -> httpx.Response:
        """Bound to the node and to its TTL check; there is no serfHealth without gossip."""
        body = {**orjson.loads(request.content), "Node": self._node, "NodeChecks": []}
        return await self._send("/v1/session/create", body, request)

    async def _answer(self, what: str, request: httpx.Request) -> httpx.Response:
        head, _, name = what.partition("/")
        if what == "self":
            return _json({"Config": {"NodeName": self._node, "Datacenter": "dc1", "Version": "", "Server": False},
                          "Member": {"Addr": LOOPBACK}})  # fmt: skip
        if what == "services":
            return _json({key: value for key, value in self._services.items() if "citadel-stack" in value["Meta"]})
        if what == "checks":
            return _json(self._checks)
        verb, _, identity = name.partition("/")
        known: dict[tuple[str, str], Callable[[str, httpx.Request], Awaitable[httpx.Response]]] = {
            ("service", "register"): self._register,
            ("service", "deregister"): self._deregister,
            ("check", "update"): self._update,
            ("check", "deregister"): self._deregister_check,
        }
        return await known[head, verb](identity, request)

    async def _register(self, _: str, request: httpx.Request) -> httpx.Response:
        body: Document = orjson.loads(request.content)
        identity = body.get("ID") or body["Name"]
        service = {
            "ID": identity,
            "Service": body["Name"],
            "Address": body.get("Address", ""),
            "Port": body.get("Port", 0),
            "Tags": body.get("Tags") or [],
            "Meta": body.get("Meta") or {},
        }
        checks = [self._check(service, check) for check in body.get("Checks") or ()]
        named = {check["CheckID"] for check in checks}
        if "replace-existing-checks" in request.url.params:
            for check_id in [i for i, c in self._checks.items() if c["ServiceID"] == identity and i not in named]:
                await self._deregister_check(check_id, request)
        first = not self._services and not self._checks
        self._services[identity] = service
        self._checks.update((check["CheckID"], check) for check in checks)
        document = {"Node": self._node, "Address": LOOPBACK, "Service": service, "Checks": checks}
        return await self._send("/v1/catalog/register", {**document, "SkipNodeUpdate": not first}, request)

    def _check(self, service: Document, check: Document) -> Document:
        return {
            "Node": self._node,
            "CheckID": check["CheckID"],
            "Name": check["Name"],
            "Status": check.get("Status") or "critical",
            "Output": "",
            "ServiceID": service["ID"],
            "ServiceName": service["Service"],
        }

    async def _deregister(self, identity: str, request: httpx.Request) -> httpx.Response:
        if self._services.pop(identity, None) is None:
            return httpx.Response(404)
        self._checks = {key: check for key, check in self._checks.items() if check["ServiceID"] != identity}
        return await self._send("/v1/catalog/deregister", {"Node": self._node, "ServiceID": identity}, request)

    async def _deregister_check(self, identity: str, request: httpx.Request) -> httpx.Response:
        if self._checks.pop(identity, None) is None:
            return httpx.Response(404)
        return await self._send("/v1/catalog/deregister", {"Node": self._node, "CheckID": identity}, request)

    async def _update(self, identity: str, _: httpx.Request) -> httpx.Response:
        """A sign of life that changes no status is news to nobody but the client agent."""
        return httpx.Response(200 if identity in self._checks else 404)

    async def _send(self, path: str, body: Document, request: httpx.Request) -> httpx.Response:
        content = orjson.dumps(body)
        sent = httpx.Request("PUT", self._base + path, content=content, extensions=request.extensions)
        return await self._pool.handle_async_request(sent)


def _json(document: object) -> httpx.Response:
    return httpx.Response(200, headers={"X-Consul-Index": "1"}, content=orjson.dumps(document))
