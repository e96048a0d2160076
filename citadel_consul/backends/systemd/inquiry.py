"""Asking systemd about units without running any."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from citadel_consul.backends.systemd.bus import SystemdBus, default_address
from citadel_consul.backends.systemd.unit import UnitState
from citadel_consul.core.model import SystemdBackend
from citadel_consul.errors import BackendError, BackendUnavailable

Answer = UnitState | BackendError | BackendUnavailable


async def unit_states(
    specs: Iterable[SystemdBackend], addresses: Mapping[str, str] | None = None
) -> dict[SystemdBackend, Answer]:
    """How each unit is now, or why that cannot be told.

    ``addresses`` are those of buses that are elsewhere than usual.
    """
    by_bus: dict[str, list[SystemdBackend]] = {}
    for spec in dict.fromkeys(specs):
        by_bus.setdefault(spec.bus, []).append(spec)
    found: dict[SystemdBackend, Answer] = {}
    for name, on_bus in by_bus.items():
        bus = SystemdBus(name, (addresses or {}).get(name) or default_address(name), on_change=_ignore, on_return=_rest)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(bus.run())
            try:
                for spec in on_bus:
                    found[spec] = await _state(bus, spec)
            finally:
                running.cancel()
    return found


async def _state(bus: SystemdBus, spec: SystemdBackend) -> Answer:
    try:
        return UnitState.of(await bus.properties(spec.unit, await bus.load(spec.unit)))
    except (BackendError, BackendUnavailable) as error:
        return error


def _ignore(_bus: SystemdBus, _path: str, _changed: Mapping[str, object]) -> None:
    """Nothing is watched."""


async def _rest(_bus: SystemdBus) -> None:
    """Nothing has to be looked at again."""
