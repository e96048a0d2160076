"""The ground that each group of typed methods stands on.

python-consul2 is imported when one of its methods is used: with what it needs it takes a quarter of the time in which a
client of the discovery library starts, and finding services uses none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson

from citadel_consul.consul.transport import HttpxTransport, Response

if TYPE_CHECKING:
    from citadel_consul.consul.nouns import API

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Indexed(Generic[T_co]):
    """An answer with the raft index it speaks of; give the index to the next call to wait for something newer."""

    index: int
    value: T_co


class Endpoint:
    """What the groups of methods have in common: python-consul2's API, and a road for what it lacks."""

    def __init__(self, transport: HttpxTransport, token: str | None) -> None:
        self._http = transport
        self._token = token
        self._headers: Mapping[str, str] = {"X-Consul-Token": token} if token else {}
        dc = transport.address.datacenter
        self._dc: tuple[tuple[str, object], ...] = (("dc", dc),) if dc else ()

    @cached_property
    def _api(self) -> API:
        from citadel_consul.consul.nouns import API

        return API(self._http, self._token)

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
    if response.code < 400:
        return
    from consul import base

    raise (base.NotFound if response.code == 404 else base.ClientError)(response.body)
