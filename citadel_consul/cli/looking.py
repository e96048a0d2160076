"""One look at a stack: everything that the screens of ``status``, ``health`` and ``explain`` are made of."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from citadel_consul.api.measuring import read_measured
from citadel_consul.api.reading import leadership_of, locator, read_stack, read_standbys
from citadel_consul.consul.catalog import CRITICAL, WARNING
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.answers.services import Locate
from citadel_consul.core.answers.status import Leadership
from citadel_consul.core.measurement import Measured
from citadel_consul.core.model import Instance
from citadel_consul.core.snapshot import Defaults, Snapshot
from citadel_consul.errors import PermissionDenied
from citadel_consul.store.reading import checks_of_stack
from citadel_consul.store.state import StackState, instance_of


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen, and when (unix seconds). ``standbys`` is None where the token may not see them,
    ``measured`` where nobody asked for it."""

    at: float
    state: StackState
    snapshot: Snapshot
    leadership: Leadership | None
    standbys: tuple[str, ...] | None
    outputs: Mapping[Instance, tuple[str, ...]]
    measured: Measured | None = None

    @property
    def locate(self) -> Locate:
        """Fills in endpoints that are templates."""
        return locator(self.state)


async def look(client: ConsulClient, stack: str, defaults: Defaults, *, measure: bool = False) -> Look:
    """Look at a stack; with ``measure`` its node agents are asked, too. Raises ConsulUnavailable or ConsulRefused."""
    state = await read_stack(client, stack, defaults)
    leadership = leadership_of(state)
    snapshot = state.snapshot()
    standbys = await _standbys(client, stack, leadership)
    outputs = await read_outputs(client, stack) if snapshot.checks else {}
    measured = await read_measured(state) if measure else None
    return Look(time.time(), state, snapshot, leadership, standbys, outputs, measured)


async def read_outputs(client: ConsulClient, stack: str) -> Mapping[Instance, tuple[str, ...]]:
    """What each check of the stack that is not passing says, by instance."""
    own = checks_of_stack(stack)
    checks = [check for state in (CRITICAL, WARNING) for check in (await client.health_state(state, filter=own)).value]
    found: dict[Instance, tuple[str, ...]] = {}
    for check in checks:
        instance = instance_of(stack, check.service_id)
        if instance is not None:
            said = " ".join(check.output.split())
            text = f"check {check.name} is {check.status}" + (f": {said}" if said else "")
            found[instance] = (*found.get(instance, ()), text)
    return found


async def _standbys(client: ConsulClient, stack: str, leadership: Leadership | None) -> tuple[str, ...] | None:
    try:
        return await read_standbys(client, stack, leadership)
    except PermissionDenied:
        return None
