"""HTTP to Consul: python-consul2's pluggable client over httpx.

The one place where foreign errors become those of :mod:`citadel_consul.errors`; nothing of httpx or of consul leaves
it. What each status means:

=====================  ==================================================================================
401, 403               ``PermissionDenied``
404                    ``NotFound``; that of a GET is left to the endpoint, because a missing key is no error
409                    left to the endpoint: it is how a transaction says no
408, 429, 5xx          ``ConsulUnavailable`` (Consul answers 500 when it has no cluster leader)
any other 3xx or 4xx   ``ConsulRefused``
no answer in time      ``ConsulUnavailable``
=====================  ==================================================================================

Requests go to a transport (see ``connection``) and not through ``AsyncClient``: cookies, redirects and authentication
flows are of no use here. Consul takes at most 200 connections from one address (``http_max_conns_per_client``), shared
by everything on a host; one pool stays far below that.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar
from urllib.parse import quote, urlencode

import httpx

from citadel_consul.consul.address import ConsulAddress
from citadel_consul.consul.connection import ConnectionPool, Target
from citadel_consul.errors import (
    CitadelError,
    ConsulRefused,
    ConsulUnavailable,
    InvalidInput,
    NotFound,
    PermissionDenied,
)

T = TypeVar("T")
Params = Iterable[tuple[str, object]]

CONNECT_TIMEOUT_SECONDS: Final = 2.0
READ_TIMEOUT_SECONDS: Final = 10.0
_LONGEST_WAIT_SECONDS: Final = 600.0  # Consul caps every wait at ten minutes
_UNNAMED_WAIT_SECONDS: Final = 300.0  # … and takes five when none is named
_MESSAGE_LIMIT: Final = 300
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Response:
    """An answer of Consul as python-consul2's callbacks read it. ``body`` is decoded when somebody asks for it."""

    __slots__ = ("code", "content", "headers")

    def __init__(self, code: int, headers: Mapping[str, str], content: bytes) -> None:
        self.code = code
        self.headers = headers
        self.content = content

    @property
    def body(self) -> str:
        return self.content.decode("utf-8", "replace")


class HttpxTransport:
    """A pool of connections to one Consul agent.

    Every call has a time-out: ``connect_timeout_seconds`` to get a connection, ``read_timeout_seconds`` for the
    answer. A blocking query gets ``wait + wait/16`` on top of the latter, which is as late as Consul may answer it.
    """

    def __init__(
        self,
        address: ConsulAddress,
        *,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_uri = address.base_url
        self.address = address
        self._connect_seconds = connect_timeout_seconds
        self._read_seconds = read_timeout_seconds
        self._transport = transport or _open_pool(address)
        self._closed = False

    def uri(self, path: str, params: Iterable[tuple[str, object]] | None = None) -> str:
        """The URL of a resource."""
        url = self.base_uri + quote(path, safe="/:")
        return f"{url}?{urlencode(list(params))}" if params else url

    async def get(
        self,
        callback: Callable[[Response], T],
        path: str,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        return await self.request(callback, "GET", path, params, b"", headers)

    async def put(
        self,
        callback: Callable[[Response], T],
        path: str,
        params: Params | None = None,
        data: str | bytes | None = b"",
        headers: Mapping[str, str] | None = None,
    ) -> T:
        return await self.request(callback, "PUT", path, params, data, headers)

    async def post(
        self,
        callback: Callable[[Response], T],
        path: str,
        params: Params | None = None,
        data: str | bytes | None = b"",
        headers: Mapping[str, str] | None = None,
    ) -> T:
        return await self.request(callback, "POST", path, params, data, headers)

    async def delete(
        self,
        callback: Callable[[Response], T],
        path: str,
        params: Params | None = None,
        data: str | bytes | None = b"",
        headers: Mapping[str, str] | None = None,
    ) -> T:
        return await self.request(callback, "DELETE", path, params, data, headers)

    async def request(
        self,
        callback: Callable[[Response], T],
        method: str,
        path: str,
        params: Params | None,
        data: str | bytes | None,
        headers: Mapping[str, str] | None,
    ) -> T:
        """Send one request and give its answer to ``callback``, whose result it returns."""
        if self._closed:
            raise RuntimeError("this Consul client was closed")
        query = list(params or ())
        response = await self._exchange(method, path, query, data or b"", headers)
        what = f"{method} {path}"
        error = _error_of(response, method, what)
        if error is not None:
            raise error
        try:
            return callback(response)
        except _errors_of_python_consul() as failure:
            raise _translated(response, what) from failure
        except (ValueError, LookupError, TypeError, AttributeError) as failure:
            raise ConsulUnavailable(f"{what}: the answer of {self.address} cannot be read as Consul's") from failure

    async def _exchange(
        self,
        method: str,
        path: str,
        query: list[tuple[str, object]],
        data: str | bytes,
        headers: Mapping[str, str] | None,
    ) -> Response:
        read_seconds = answer_seconds(query, self._read_seconds)
        what = f"{method} {path}"
        try:
            request = self._request(method, path, query, data, headers, read_seconds)
            # One deadline over all, because a transport may count anew with every piece that arrives.
            async with asyncio.timeout(self._connect_seconds + read_seconds):
                response = await self._transport.handle_async_request(request)
                try:
                    content = await response.aread()
                finally:
                    await response.aclose()
        except httpx.InvalidURL as error:
            raise InvalidInput.at("Consul request", f"{what}: {error}") from error
        except (TimeoutError, httpx.TimeoutException) as error:
            raise ConsulUnavailable(f"{what}: no answer of {self.address} in time ({type(error).__name__})") from error
        except httpx.LocalProtocolError as error:
            # Its text can quote a header, and one of them is the token.
            raise ConsulUnavailable(f"{what}: the request cannot be sent to {self.address}") from error
        except (httpx.HTTPError, httpx.StreamError, OSError, UnicodeError) as error:
            reason = str(error) or type(error).__name__
            raise ConsulUnavailable(f"{what}: {self.address} cannot be reached: {reason}") from error
        return Response(response.status_code, response.headers, content)

    def _request(
        self,
        method: str,
        path: str,
        query: list[tuple[str, object]],
        data: str | bytes,
        headers: Mapping[str, str] | None,
        read_seconds: float,
    ) -> httpx.Request:
        connect = self._connect_seconds
        timeouts = {"connect": connect, "pool": connect, "read": read_seconds, "write": read_seconds}
        return httpx.Request(
            method, self.uri(path, query), content=data, headers=headers, extensions={"timeout": timeouts}
        )

    def drop_connections(self) -> None:
        """Trust no connection that is open now: requests that are under way fail, and the next ones connect anew."""
        if isinstance(self._transport, ConnectionPool):
            self._transport.drop()

    @property
    def connections_opened(self) -> int:
        """How many connections were made so far; 0 over a transport that was given."""
        return self._transport.opened if isinstance(self._transport, ConnectionPool) else 0

    async def aclose(self) -> None:
        """Close every connection; calls after this raise ``RuntimeError``."""
        self._closed = True
        await self._transport.aclose()


def answer_seconds(query: Iterable[tuple[str, object]], margin_seconds: float) -> float:
    """How long the answer to a request may take: later than ``wait + wait/16`` if it is a blocking query."""
    named = dict(query)
    if "index" not in named:
        return margin_seconds
    wait = _seconds(str(named["wait"])) if "wait" in named else _UNNAMED_WAIT_SECONDS
    wait = min(wait, _LONGEST_WAIT_SECONDS)
    return wait + wait / 16 + margin_seconds


def _seconds(duration: str) -> float:
    pieces = _DURATION.findall(duration)
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in pieces) if pieces else _UNNAMED_WAIT_SECONDS


def _open_pool(address: ConsulAddress) -> ConnectionPool:
    tls = _ssl_context(address) if address.scheme == "https" else None
    return ConnectionPool(Target(address.host, address.port, address.socket_path, tls, address.tls_server_name))


def _ssl_context(address: ConsulAddress) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=address.cacert, capath=address.capath)
        if address.client_cert is not None:
            # Without a password of ours OpenSSL would ask for one on the terminal.
            context.load_cert_chain(address.client_cert, address.client_key, password="")
    except OSError as error:
        raise InvalidInput.at(
            "Consul TLS", f"a certificate or key cannot be loaded: {error}", "see CONSUL_CACERT, CONSUL_CLIENT_CERT"
        ) from error
    if not address.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _error_of(response: Response, method: str, what: str) -> CitadelError | None:
    status = response.code
    if status < 300 or status == 409 or (status == 404 and method == "GET"):
        return None
    message = f"{what}: Consul answered {status}: {_said(response)}"
    if status == 404:
        return NotFound(message)
    if status in (401, 403):
        return PermissionDenied(message, status)
    if status in (408, 429) or status >= 500:
        return ConsulUnavailable(message)
    return ConsulRefused(message, status)


def _errors_of_python_consul() -> type[Exception]:
    from consul import base  # late, see api: who needs it for nothing but this clause has gone another way by now

    return base.ConsulException  # type: ignore[no-any-return]  # python-consul2 has no types


def _translated(response: Response, what: str) -> CitadelError:
    """What a callback raised about a 404 or a 409, the only ones to reach one."""
    message = f"{what}: Consul answered {response.code}: {_said(response)}"
    return NotFound(message) if response.code == 404 else ConsulRefused(message, response.code)


def _said(response: Response) -> str:
    text = " ".join(response.body.split())
    return text if len(text) <= _MESSAGE_LIMIT else f"{text[:_MESSAGE_LIMIT]}…"
