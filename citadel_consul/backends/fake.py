"""A machine without processes: the backend for simulations and for the tests of everything above.

:class:`FakeMachine` is the world: what runs on it goes on when an agent dies. :class:`FakeBackend` is one agent's view
of it; make a new one over the same machine to play a restarted agent. Nothing happens by itself and nothing is random,
so a simulation that drives time drives everything: exits are injected with :meth:`FakeMachine.end`, and a stop takes
the loop's time that :attr:`Behaviour.stop_seconds` says.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from signal import SIGKILL, SIGTERM
from types import TracebackType
from typing import Self

from citadel_consul.backends.base import (
    Adopted,
    Exit,
    ExitSink,
    Gone,
    Handle,
    InstanceExited,
    Launch,
    Notice,
    NoticeSink,
    Running,
    Unproven,
)
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError, CitadelError

_BOOT = "fake-boot"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the instances of a service behave.

    ``start_error`` is raised by every start. ``stop_seconds`` is how long a stop takes; ``ignores_stop`` means for
    ever, so that the time-out and then SIGKILL end it. ``exits_with`` has it end with this status at once.
    ``notice`` is told at each start.
    """

    start_error: CitadelError | None = None
    stop_seconds: float = 0.0
    ignores_stop: bool = False
    exits_with: int | None = None
    notice: str = ""


@dataclass(slots=True)
class Life:
    """One launch of an instance, from its start to its ``exit``."""

    launch: Launch
    handle: Handle
    exit: Exit | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class FakeMachine:
    """What runs and what ran.

    ``behaviours`` (by service), ``unproven`` (by instance: the reason) and ``give_back_error`` (raised by each
    ``give_back``) are for the test to set; ``history`` lists
    each ``start``, ``stop``, ``reload``, ``give-back`` and ``exit`` with the instance and its generation, in order.
    """

    def __init__(self) -> None:
        self.give_back_error: CitadelError | None = None
        self.behaviours: dict[str, Behaviour] = {}
        self.unproven: dict[Instance, str] = {}
        self.history: list[tuple[str, Instance, int]] = []
        self.lives: dict[Instance, Life] = {}
        self._watchers: dict[Instance, Callable[[Life], None]] = {}
        self._pids = itertools.count(1000)

    def running(self) -> dict[Instance, Handle]:
        """What runs at the moment."""
        return {instance: life.handle for instance, life in self.lives.items() if life.exit is None}

    def end(self, instance: Instance, exit_: Exit | None = None) -> None:
        """Let an instance end (by default: killed by SIGKILL). The backend that watches it is told before this returns.

        Nothing happens if it does not run.
        """
        life = self.lives.get(instance)
        if life is None or life.exit is not None:
            return
        life.exit = exit_ or Exit.by_signal(SIGKILL)
        self.note("exit", life)
        life.ended.set()
        watcher = self._watchers.pop(instance, None)
        if watcher is not None:
            watcher(life)

    def begin(self, launch: Launch) -> Life:
        """Run a launch."""
        pid = next(self._pids)
        life = Life(launch, Handle("process", pid, pid, _BOOT))
        self.lives[launch.instance] = life
        self.note("start", life)
        return life

    def note(self, what: str, life: Life) -> None:
        """Add to the history."""
        self.history.append((what, life.launch.instance, life.launch.generation))

    def watch(self, instance: Instance, watcher: Callable[[Life], None] | None) -> None:
        """Have ``watcher`` called at the end of what runs now, instead of whoever watched it before."""
        if watcher is None:
            self._watchers.pop(instance, None)
        else:
            self._watchers[instance] = watcher


class FakeBackend:
    """See :class:`citadel_consul.backends.base.Backend`."""

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine
        self._sink: ExitSink | None = None
        self._notice_sink: NoticeSink | None = None
        self._watched: set[Instance] = set()
        self._stopping: set[Instance] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for instance in self._watched:
            self._machine.watch(instance, None)
        self._watched.clear()

    def set_exit_sink(self, sink: ExitSink) -> None:
        """See :meth:`Backend.set_exit_sink`."""
        self._sink = sink

    def set_notice_sink(self, sink: NoticeSink) -> None:
        """See :meth:`Backend.set_notice_sink`."""
        self._notice_sink = sink

    async def start(self, launch: Launch) -> Handle:
        """See :meth:`Backend.start`."""
        instance = launch.instance
        behaviour = self._machine.behaviours.get(instance.service, Behaviour())
        if instance in self._stopping:
            await self.stop(instance, launch.stop_timeout_seconds)  # joins the stop, or finishes a cancelled one
        found = await self.adopt(launch)
        if isinstance(found, Unproven):
            raise BackendError(f"{instance}: {found.reason}")
        if isinstance(found, Running):
            if found.generation != launch.generation:
                raise BackendError(f"{instance}: generation {found.generation} still runs")
            return found.handle
        if behaviour.start_error is not None:
            raise behaviour.start_error
        life = self._machine.begin(launch)
        self._watch(instance)
        if behaviour.notice and self._notice_sink is not None:
            self._notice_sink(Notice(instance, behaviour.notice))
        if behaviour.exits_with is not None:
            status = Exit.with_status(behaviour.exits_with)
            asyncio.get_running_loop().call_soon(self._machine.end, instance, status)
        return life.handle

    async def adopt(self, launch: Launch) -> Adopted:
        """See :meth:`Backend.adopt`."""
        instance = launch.instance
        if instance in self._machine.unproven:
            return Unproven(self._machine.unproven[instance])
        life = self._machine.lives.get(instance)
        if life is None:
            return Gone()
        if life.exit is not None:
            return Gone(life.launch.generation, life.exit)
        self._watch(instance)
        return Running(life.handle, life.launch.generation)

    async def survivors(self) -> tuple[Instance, ...]:
        """See :meth:`Backend.survivors`."""
        return tuple(sorted(set(self._machine.running()) - self._watched))

    async def stop(self, instance: Instance, timeout_seconds: float) -> Exit | None:
        """See :meth:`Backend.stop`."""
        if instance in self._machine.unproven:
            raise BackendError(f"{instance}: {self._machine.unproven[instance]}")
        life = self._machine.lives.get(instance)
        if life is None or life.exit is not None:
            return None
        self._watch(instance)
        if instance not in self._stopping:
            self._stopping.add(instance)
            self._machine.note("stop", life)
        behaviour = self._machine.behaviours.get(instance.service, Behaviour())
        polite = not behaviour.ignores_stop and behaviour.stop_seconds <= timeout_seconds
        try:
            async with asyncio.timeout(behaviour.stop_seconds if polite else timeout_seconds):
                await life.ended.wait()
        except TimeoutError:
            self._machine.end(instance, Exit.by_signal(SIGTERM if polite else SIGKILL))
        return life.exit

    async def give_back(self, instance: Instance) -> None:
        """See :meth:`Backend.give_back`."""
        if self._machine.give_back_error is not None:
            raise self._machine.give_back_error
        life = self._machine.lives.get(instance)
        if life is not None and life.exit is None:
            self._machine.note("give-back", life)

    def forget(self, instance: Instance) -> None:
        """See :meth:`Backend.forget`."""
        life = self._machine.lives.get(instance)
        if life is not None and life.exit is not None:
            del self._machine.lives[instance]

    async def reload(self, instance: Instance) -> None:
        """See :meth:`Backend.reload`."""
        life = self._machine.lives.get(instance)
        if life is None or life.exit is not None:
            raise BackendError(f"{instance}: it does not run, so there is nothing to reload")
        if getattr(life.launch.backend, "reload_signal", None) is None:
            raise BackendError(f"{instance}: backend.reload_signal: not set, so it cannot be reloaded, only restarted")
        self._machine.note("reload", life)

    def _watch(self, instance: Instance) -> None:
        self._watched.add(instance)
        self._machine.watch(instance, self._on_exit)

    def _on_exit(self, life: Life) -> None:
        instance = life.launch.instance
        requested = instance in self._stopping
        self._watched.discard(instance)
        self._stopping.discard(instance)
        if self._sink is not None and life.exit is not None:
            self._sink(InstanceExited(instance, life.launch.generation, life.exit, requested))
