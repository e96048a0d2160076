"""Finds the other services in Consul.

The answer is kept for a second, and for as long as Consul does not answer: a platform must not fall over because
its catalog is away for a while (fail static). Like Consul's DNS, it hands out instances whose checks warn, but only
when none passes: a service that is degraded still serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple

import httpx

from .failures import Unavailable

CACHE_SECONDS = 1.0


class Address(NamedTuple):
    """Where an instance listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The base URL of an HTTP service here."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(slots=True)
class _Known:
    addresses: tuple[Address, ...]
    until: float


def _status(entry: dict[str, Any]) -> str:
    states = {check["Status"] for check in entry["Checks"]}
    return next((state for state in ("critical", "warning") if state in states), "passing")


def usable(entries: list[dict[str, Any]]) -> tuple[Address, ...]:
    """The addresses in an answer of ``/v1/health/service``: the passing ones, else those that only warn."""
    by_status: dict[str, list[Address]] = {}
    for entry in entries:
        host = entry["Service"]["Address"] or entry["Node"]["Address"]
        by_status.setdefault(_status(entry), []).append(Address(host, entry["Service"]["Port"]))
    return tuple(by_status.get("passing") or by_status.get("warning") or ())


class Discovery:
    """Answers 'where is this service' from one Consul agent."""

    def __init__(
        self, http: httpx.AsyncClient, url: str, token: str = "", clock: Callable[[], float] = monotonic
    ) -> None:
        self._http = http
        self._url = url
        self._headers = {"X-Consul-Token": token} if token else {}
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def addresses(self, service: str) -> tuple[Address, ...]:
        """Where ``service`` can be reached now. Raises Unavailable when nobody knows of a usable instance."""
        lock = self._asking.setdefault(service, asyncio.Lock())
        async with lock:
            known = self._known.get(service)
            if known is None or known.until <= self._clock():
                known = self._remember(service, await self._ask(service))
        if not known.addresses:
            raise Unavailable(f"Consul knows no usable instance of {service}")
        return known.addresses

    def forget(self, service: str) -> None:
        """Ask Consul again next time: a connection to ``service`` failed."""
        if known := self._known.get(service):
            known.until = 0.0

    def _remember(self, service: str, fresh: tuple[Address, ...] | None) -> _Known:
        before = self._known.get(service)
        addresses = fresh if fresh is not None else before.addresses if before else ()
        # An empty answer is not kept: who starts a moment too early must find the service as soon as it is there.
        known = _Known(addresses, self._clock() + CACHE_SECONDS if addresses else 0.0)
        self._known[service] = known
        return known

    async def _ask(self, service: str) -> tuple[Address, ...] | None:
        entries = await self._get(f"/v1/health/service/{service}")
        return None if entries is None else usable(entries)

    async def tagged(self, tag: str) -> tuple[str, ...] | None:
        """The names of all services that carry ``tag``, or None while Consul does not answer."""
        services = await self._get("/v1/catalog/services")
        return None if services is None else tuple(sorted(name for name, tags in services.items() if tag in tags))

    async def _get(self, path: str) -> Any:
        try:
            response = await self._http.get(self._url + path, headers=self._headers, timeout=2.0)
            return response.raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return None
