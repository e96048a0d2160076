"""What a runner needs of its node: the backend, the catalog, and whom to tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from citadel_consul.backends.base import Backend
from citadel_consul.core.lifecycle import Observed
from citadel_consul.core.model import Instance, ServiceSpec


class Catalog(Protocol):
    """Where an instance is registered for others to find."""

    async def announce(self, spec: ServiceSpec, instance: Instance) -> None:
        """Register the instance as ready, and return when the catalog shows it so."""
        ...

    def adopt(self, instance: Instance, spec: ServiceSpec) -> None:
        """Take an instance as registered by an earlier agent."""
        ...

    async def mark_down(self, spec: ServiceSpec, instance: Instance) -> None:
        """Have the catalog show the instance as critical at once."""
        ...

    async def withdraw(self, instance: Instance) -> None:
        """Take the instance out of the catalog."""
        ...

    def adopt_leaving(self, instance: Instance) -> None:
        """Take an instance as one that an earlier agent was draining."""
        ...


class Readiness(Protocol):
    """Tells when an instance serves."""

    async def until_ready(self, spec: ServiceSpec) -> None: ...


class Drainer(Protocol):
    """Sees to it that an instance can be stopped without anybody noticing."""

    async def drain(
        self, spec: ServiceSpec, instance: Instance, pid: int | None, tell: Callable[[int | None], None]
    ) -> None:
        """Take the instance out of what clients look up, and return when nothing more is in flight."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a runner needs of its node."""

    stack: str
    backend: Backend
    catalog: Catalog
    readiness: Readiness
    drainer: Drainer
    spec_of: Callable[[str], ServiceSpec | None]
    fresh_spec_of: Callable[[str], Awaitable[ServiceSpec | None]]
    stop_timeout_of: Callable[[ServiceSpec | None], float]
    report: Callable[[Instance, Observed], None]
    forget: Callable[[Instance], None]
    note: Callable[[str, Instance, Observed], None]
    wall: Callable[[], float]
