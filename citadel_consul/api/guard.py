"""What is refused before anything else looks at a request.

An API on loopback is reached by every page that a browser on the machine shows. Two tricks are known, and refused here:
a page of another site that posts a form or a 'simple' request (its ``Origin`` is another, and a form is not JSON), and
a name of the attacker's that is made to resolve to 127.0.0.1, so that the browser takes us for that site (then the
``Host`` is that name). An address as host cannot be such a name.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

from fastapi import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citadel_consul.api.problems import BODY_TOO_LARGE, CROSS_ORIGIN, NOT_JSON, WRONG_HOST, problem

MAX_BODY_BYTES = 256 * 1024
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
OWN_SUFFIXES = (".consul", ".localhost")
"""Names that no stranger can register: Consul's own domain, and the loopback names of RFC 6761."""

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}


def known_hosts(api: str, node: str, more: Iterable[str] = ()) -> frozenset[str]:
    """The host names that an orchestrator answers for, besides addresses and names that nobody else can have."""
    bound = split_host(api)
    return frozenset(name.lower() for name in ("localhost", bound, node, socket.gethostname(), *more) if name)


def split_host(authority: str) -> str:
    """The host of ``host[:port]``, in lower case and without the brackets of an IPv6 address."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").lower()
    except ValueError:
        return ""


class Guard:
    """An ASGI application that lets through to another only what may come through."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        body = b""
        if refusal is None and scope["method"] not in SAFE:
            read = await _read_body(receive)
            if read is None:
                refusal = problem(BODY_TOO_LARGE, f"at most {MAX_BODY_BYTES} bytes are taken", scope["path"])
            else:
                body = read
                refusal = _body_refusal(scope, headers, body)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        later = receive if scope["method"] in SAFE else _replay(body, receive)
        await self._app(scope, later, _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host")
        if host is not None and not self._answers_for(host):
            detail = f"this orchestrator does not answer for the host {host[:200]!r}: name it in api.hosts"
            return problem(WRONG_HOST, detail, scope["path"])
        origin = headers.get("origin")
        if scope["method"] in SAFE or origin is None:
            return None
        if host is None or urlsplit_origin(origin) != host.lower():
            return problem(CROSS_ORIGIN, f"the request comes from a page of {origin[:200]!r}", scope["path"])
        return None

    def _answers_for(self, authority: str) -> bool:
        host = split_host(authority)
        if host in self._hosts or host.endswith(OWN_SUFFIXES):
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True


def urlsplit_origin(origin: str) -> str | None:
    """The ``host[:port]`` of an Origin header; None for ``null`` and for what is none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _body_refusal(scope: Scope, headers: Headers, body: bytes) -> Response | None:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not media_type and not body:
        return None
    if media_type == "application/json":
        return None
    given = f"it is {media_type[:100]}" if media_type else "nothing is said of it"
    detail = f"send the body as JSON with the header Content-Type: application/json ({given})"
    return problem(NOT_JSON, detail, scope["path"], headers={"Accept": "application/json"})


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body; None if it is too large (the rest is not read) or the client has gone."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read once more; after it, whatever comes (the client's going)."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
