"""Which units of a node a stack manages."""

from __future__ import annotations

from collections.abc import Iterable

from citadel_consul.core.model import ServiceSpec, SystemdBackend
from citadel_consul.rendering.expansion import expand
from citadel_consul.rendering.scope import NodeContext


def unit_of_service(stack: str, spec: ServiceSpec, node: str, address: str) -> str | None:
    """The unit of the system's systemd that is ``spec`` on ``node``; None if it is none. Raises InvalidInput."""
    backend = expand(spec, NodeContext(node, address, stack)).backend
    return backend.unit if isinstance(backend, SystemdBackend) and backend.bus == "system" else None


def units_on(stack: str, specs: Iterable[ServiceSpec], node: str, address: str) -> tuple[str, ...]:
    """The units of the system's systemd on ``node``, in order of their names."""
    found = {unit_of_service(stack, spec, node, address) for spec in specs if node in spec.nodes}
    return tuple(sorted(unit for unit in found if unit is not None))
