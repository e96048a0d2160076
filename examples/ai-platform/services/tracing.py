"""The way of a request through the platform.

Each service measures its own part and reports it, with the parts of the services it called, in the response header
``X-Hops``; so the first service of the chain knows the whole way, and no hop is claimed by anyone but itself.
The identity of the request travels down in ``X-Request-Id``.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass

import orjson

HOPS_HEADER = "x-hops"
REQUEST_ID_HEADER = "x-request-id"
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Hop:
    """One service's part of a request. ``ms`` contains the time of the hops below it (those of greater depth)."""

    service: str
    node: str
    ms: float
    depth: int = 0

    def deeper(self) -> Hop:
        """The same hop as the caller sees it."""
        return Hop(self.service, self.node, self.ms, self.depth + 1)


hops_below: ContextVar[list[Hop] | None] = ContextVar("hops_below", default=None)
request_id: ContextVar[str] = ContextVar("request_id", default="")


def encode(hops: list[Hop]) -> str:
    """``hops`` as the value of the header."""
    return orjson.dumps([[hop.service, hop.node, round(hop.ms, 3), hop.depth] for hop in hops]).decode()


def decode(value: str) -> list[Hop]:
    """The hops in a header; none when it does not parse, for a trace must never fail a request."""
    try:
        return [Hop(str(s), str(n), float(ms), int(depth)) for s, n, ms, depth in orjson.loads(value)]
    except (ValueError, TypeError):
        return []


def collect(value: str | None) -> None:
    """Add what a called service reported to the request being handled."""
    below = hops_below.get()
    if below is not None and value:
        below.extend(hop.deeper() for hop in decode(value))


def accepted_id(value: str | None) -> str:
    """The request id that a caller sent, if it is fit for a header and a log line."""
    return value if value and _SAFE_ID.fullmatch(value) else ""
