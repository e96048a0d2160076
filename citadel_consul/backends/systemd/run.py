"""One run of a unit: what the backend knows of it from its start or adoption to its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from citadel_consul.backends.base import Exit, Handle
from citadel_consul.backends.systemd.bus import SystemdBus
from citadel_consul.backends.systemd.unit import UnitState
from citadel_consul.core.model import Instance, SystemdBackend


@dataclass(frozen=True, slots=True)
class Sighting:
    """A unit as it was seen: what a spec names, on its bus, at its object path."""

    spec: SystemdBackend
    bus: SystemdBus
    path: str
    state: UnitState


@dataclass(slots=True, eq=False)
class Run:
    """A unit on behalf of an instance.

    It passes three points, each an event: ``begun``, when systemd has started it (then ``handle`` names the very run),
    ``ended``, when what ran is over (then ``exit`` says how), and ``settled``, when nothing of it is left. ``changed``
    is set at whatever is heard of it. ``deadline`` is, on the clock of the loop, until when an ordered stop is polite;
    ``None`` while nobody asked for a stop.

    ``in_doubt`` says that it is being found out whether an end is one: of a unit that systemd restarts, what is heard
    may be a state on the way to another. ``previous`` is the InvocationID before the start: until there is another one,
    systemd speaks of the run before.
    """

    instance: Instance
    generation: int
    seen: Sighting
    stop_timeout_seconds: float
    handle: Handle | None = None
    exit: Exit | None = None
    deadline: float | None = None
    in_doubt: bool = False
    restarts: int = field(init=False)
    previous: str = field(init=False)
    state: UnitState = field(init=False)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.state = self.seen.state
        self.previous = self.state.invocation
        self.restarts = self.state.restarts

    @property
    def unit(self) -> str:
        """The name of the unit."""
        return self.seen.spec.unit

    @property
    def bus(self) -> SystemdBus:
        """Where its service manager is spoken to."""
        return self.seen.bus

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self.deadline is not None

    @property
    def is_up(self) -> bool:
        """Whether it has begun and has not ended."""
        return self.handle is not None and not self.ended.is_set()

    @property
    def ends_for_good(self) -> bool:
        """Whether systemd leaves it as it is after its end."""
        return self.requested or not self.state.restarts_itself

    @property
    def is_left_to_systemd(self) -> bool:
        """Whether systemd is to start it again by itself after an end that nobody ordered."""
        return self.seen.spec.restarts == "systemd" and not self.ends_for_good

    @property
    def is_another(self) -> bool:
        """Whether systemd speaks of a run that is not this one."""
        return self.handle is not None and self.state.invocation not in ("", self.handle.invocation)

    @property
    def was_restarted_by_systemd(self) -> bool:
        """Whether it was systemd itself that began another run."""
        return self.is_another and self.state.restarts > self.restarts

    def handle_now(self) -> Handle:
        """The run that the present state speaks of."""
        return Handle("systemd", pid=self.state.main_pid or None, unit=self.unit, invocation=self.state.invocation)
