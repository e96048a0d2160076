"""Calls to the other services by their names in Consul, with the trace of their hops.

Which instance gets a call, and who gets it when that one breaks off, is the business of the transport. Every request of
this platform may be repeated (ids are the caller's), and each says so by an ``Idempotency-Key``.
"""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import orjson

from .failures import Failure, Unavailable, rejection
from .tracing import HOPS_HEADER, REQUEST_ID_HEADER, collect, request_id


class Peers:
    """The other services, by name."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def call(
        self, service: str, method: str, path: str, body: object = None, timeout_seconds: float = 5.0
    ) -> Any:
        """What ``service`` answers, decoded from JSON.

        ``timeout_seconds`` bounds all attempts together. Raises Unavailable when no instance answers, and a Rejected
        when one refuses.
        """
        try:
            response = await self._send(service, method, path, body, timeout_seconds)
        except httpx.TimeoutException as timeout:
            raise Unavailable(f"{service} did not answer within {timeout_seconds:g} s") from timeout
        except httpx.TransportError as error:
            raise Unavailable(f"{service} cannot be reached: {str(error) or type(error).__name__}") from error
        collect(response.headers.get(HOPS_HEADER))
        return _result(service, response)

    async def _send(self, service: str, method: str, path: str, body: object, timeout_seconds: float) -> httpx.Response:
        headers = {"idempotency-key": uuid.uuid4().hex}
        if request_id.get():
            headers[REQUEST_ID_HEADER] = request_id.get()
        content = None
        if body is not None:
            content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
            headers["content-type"] = "application/json"
        return await self._http.request(
            method,
            f"http://{service}.consul{path}",
            content=content,
            headers=headers,
            timeout=timeout_seconds,
            extensions={"deadline": timeout_seconds},
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
