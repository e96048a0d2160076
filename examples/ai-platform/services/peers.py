"""Calls to the other services: found by Consul, balanced over their instances, with the trace of their hops.

The instance with the fewest calls under way gets the next one; among equals they take turns.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import httpx
import orjson

from .discovery import Address, Discovery
from .failures import Failure, Unavailable, rejection
from .tracing import HOPS_HEADER, REQUEST_ID_HEADER, collect, request_id

TRIES = 3


class Peers:
    """The other services, by name."""

    def __init__(self, http: httpx.AsyncClient, discovery: Discovery) -> None:
        self._http = http
        self._discovery = discovery
        self._under_way: Counter[Address] = Counter()
        self._turn = itertools.count()

    async def call(
        self, service: str, method: str, path: str, body: object = None, timeout_seconds: float = 5.0
    ) -> Any:
        """What ``service`` answers, decoded from JSON.

        Every request of this platform may be repeated (ids are the caller's), so a broken connection is tried again
        on the next instance. Raises Unavailable when no instance answers, and a Rejected when one refuses.
        """
        broken = ""
        for _ in range(TRIES):
            address = self._choose(await self._discovery.addresses(service))
            self._under_way[address] += 1
            try:
                response = await self._send(address, method, path, body, timeout_seconds)
            except httpx.TimeoutException as timeout:
                raise Unavailable(f"{service} did not answer within {timeout_seconds:g} s") from timeout
            except httpx.TransportError as error:
                broken = str(error) or type(error).__name__
                self._discovery.forget(service)
                continue
            finally:
                self._under_way[address] -= 1
            collect(response.headers.get(HOPS_HEADER))
            return _result(service, response)
        raise Unavailable(f"{service} cannot be reached: {broken}")

    def _choose(self, addresses: tuple[Address, ...]) -> Address:
        first = next(self._turn) % len(addresses)
        in_turn = addresses[first:] + addresses[:first]
        return min(in_turn, key=self._under_way.__getitem__)

    async def _send(
        self, address: Address, method: str, path: str, body: object, timeout_seconds: float
    ) -> httpx.Response:
        headers = {REQUEST_ID_HEADER: request_id.get()} if request_id.get() else {}
        content = None
        if body is not None:
            content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
            headers["content-type"] = "application/json"
        return await self._http.request(
            method, address.url + path, content=content, headers=headers, timeout=timeout_seconds
        )


def _result(service: str, response: httpx.Response) -> Any:
    try:
        body = orjson.loads(response.content)
    except ValueError as error:
        raise Unavailable(f"{service} answered {response.status_code} with something that is not JSON") from error
    if response.is_success:
        return body
    raise _failure(service, response.status_code, body)


def _failure(service: str, status: int, body: object) -> Failure:
    detail = str(body.get("detail", status)) if isinstance(body, dict) else str(status)
    if status >= 500:
        return Unavailable(f"{service}: {detail}")
    return rejection(status, detail)
