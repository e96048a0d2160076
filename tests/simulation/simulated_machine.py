"""A simulated machine: its instances, the probes that ask them, and the history that its node agents write down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from clockwork import EPOCH, SimulatedLoop

from citadel_consul.agent.chronicle import Chronicle, Entry
from citadel_consul.agent.readiness import Finding, Prober
from citadel_consul.backends.base import Launch
from citadel_consul.backends.fake import FakeMachine, Life
from citadel_consul.core.model import Check, Instance, ServiceSpec


class Machine(FakeMachine):
    """A node's machine: instances take a while to become ready, and may be ill while they run.

    ``on_stop`` is called when one is stopped, ``on_second`` when one is started that runs already.
    """

    def __init__(self, loop: SimulatedLoop, boot_seconds: Callable[[str], float]) -> None:
        super().__init__()
        self._loop = loop
        self._boot_seconds = boot_seconds
        self.ready_at: dict[int, float] = {}
        self.ill: set[Instance] = set()
        self.on_stop: Callable[[Instance], None] = lambda _: None
        self.on_second: Callable[[Instance], None] = lambda _: None

    def note(self, what: str, life: Life) -> None:
        super().note(what, life)
        if what == "stop":
            self.on_stop(life.launch.instance)

    def begin(self, launch: Launch) -> Life:
        running = self.lives.get(launch.instance)
        if running is not None and running.exit is None:
            self.on_second(launch.instance)
        life = super().begin(launch)
        self.ready_at[life.handle.pid or 0] = self._loop.time() + self._boot_seconds(launch.instance.service)
        return life

    def healthy(self, instance: Instance) -> bool:
        life = self.lives.get(instance)
        if life is None or life.exit is not None or instance in self.ill:
            return False
        return self._loop.time() >= self.ready_at[life.handle.pid or 0]

    def seconds_to_ready(self, instance: Instance) -> float:
        life = self.lives.get(instance)
        if life is None or life.exit is not None:
            return 1.0
        return max(0.002, self.ready_at[life.handle.pid or 0] - self._loop.time())


class SimulatedProber(Prober):
    """Asks the machine instead of the network."""

    def __init__(self, machine: Machine, node: str) -> None:
        super().__init__()
        self._machine = machine
        self._node = node

    async def until_ready(self, spec: ServiceSpec) -> None:
        instance = Instance(spec.name, self._node)
        while not self._machine.healthy(instance):  # noqa: ASYNC110  # what changes it is simulated time
            await asyncio.sleep(min(1.0, self._machine.seconds_to_ready(instance)))

    async def finding_of(self, check: Check) -> Finding | None:
        await asyncio.sleep(0.001)
        healthy = self._machine.healthy(Instance(check.target, self._node))
        return None if healthy else Finding("no answer")


class MemoryChronicle(Chronicle):
    """The history of a node, in memory, told at once. Its times are true ones, whatever the node's clock shows."""

    def __init__(self, loop: SimulatedLoop, tell: Callable[[Entry], None]) -> None:
        self._loop = loop
        self._tell = tell

    def write(self, entry: Entry) -> None:
        self._tell(replace(entry, at=EPOCH + self._loop.time()))

    def close(self) -> None:
        pass
