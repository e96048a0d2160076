"""python-consul2's API over our transport, and the ground that each group of typed methods stands on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson
from consul import base

from citadel_consul.consul.transport import HttpxTransport, Response

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Indexed(Generic[T_co]):
    """An answer with the raft index it speaks of; give the index to the next call to wait for something newer."""

    index: int
    value: T_co


class API(base.Consul):  # type: ignore[misc]  # python-consul2 has no types
    """python-consul2's nouns (``kv``, ``session``, ``agent``, …) for one token, without its constructor.

    That constructor reads ``CONSUL_HTTP_ADDR`` by splitting it on ':' (an IPv6 address or a unix socket makes it
    raise) and lets ``CONSUL_HTTP_TOKEN`` win over the token it is given. Address and token are settled before
    citadel gets here, so the environment must not have a second say. The nouns that are left out warn of their own age
    when they are made (``acl``, ``discovery_chain``) or are Consul's service mesh.
    """

    def __init__(self, transport: HttpxTransport, token: str | None) -> None:
        self.http = transport
        self.scheme = transport.address.scheme
        self.dc = transport.address.datacenter
        self.consistency = "default"
        self.token = token
        self.agent = base.Consul.Agent(self)
        self.catalog = base.Consul.Catalog(self)
        self.coordinate = base.Consul.Coordinate(self)
        self.event = base.Consul.Event(self)
        self.health = base.Consul.Health(self)
        self.kv = base.Consul.KV(self)
        self.operator = base.Consul.Operator(self)
        self.query = base.Consul.Query(self)
        self.session = base.Consul.Session(self)
        self.snapshot = base.Consul.Snapshot(self)
        self.status = base.Consul.Status(self)
        self.txn = base.Consul.Txn(self)


class Endpoint:
    """What the groups of methods have in common: python-consul2's API, and a road for what it lacks."""

    def __init__(self, transport: HttpxTransport, token: str | None) -> None:
        self._http = transport
        self._token = token
        self._api = API(transport, token)
        self._headers: Mapping[str, str] = {"X-Consul-Token": token} if token else {}
        dc = transport.address.datacenter
        self._dc: tuple[tuple[str, object], ...] = (("dc", dc),) if dc else ()

    async def _read(
        self,
        decode: Callable[[Response], T],
        path: str,
        params: Iterable[tuple[str, object]] = (),
    ) -> T:
        return await self._http.request(decode, "GET", path, (*params, *self._dc), b"", self._headers)

    async def _write(
        self,
        decode: Callable[[Response], T],
        path: str,
        params: Iterable[tuple[str, object]] = (),
        body: bytes = b"",
    ) -> T:
        return await self._http.request(decode, "PUT", path, (*params, *self._dc), body, self._headers)


def blocking(index: int | None, wait_seconds: float | None) -> list[tuple[str, object]]:
    """The parameters of a blocking query; none if there is no index to wait past."""
    if not index:
        return []
    params: list[tuple[str, object]] = [("index", index)]
    if wait_seconds is not None:
        params.append(("wait", milliseconds(wait_seconds)))
    return params


def milliseconds(seconds: float) -> str:
    """A duration as Consul reads it; fractions of a second survive."""
    return f"{round(seconds * 1000)}ms"


def index_of(response: Response) -> int:
    """The raft index of an answer. Its absence means that something other than Consul answered (``LookupError``)."""
    return int(response.headers["X-Consul-Index"])


def document(response: Response) -> Any:
    """The JSON of an answer; raises ``base.NotFound`` for a 404."""
    found(response)
    return orjson.loads(response.content)


def found(response: Response) -> None:
    """An answer without content; raises as :func:`document` does."""
    if response.code == 404:
        raise base.NotFound(response.body)
    if response.code >= 400:
        raise base.ClientError(response.body)
