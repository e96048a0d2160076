"""What is heard of the units that run for instances, and what follows from it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping

from citadel_consul.backends.base import Exit, ExitSink, Handle, InstanceExited, Notice, NoticeSink
from citadel_consul.backends.journal import UnreadableRecord
from citadel_consul.backends.launches import Launches, LaunchRecord
from citadel_consul.backends.systemd import ending
from citadel_consul.backends.systemd.bus import SystemdBus
from citadel_consul.backends.systemd.run import Run, Sighting
from citadel_consul.backends.systemd.unit import PROPERTIES, UnitState
from citadel_consul.core.model import Instance, SystemdBackend
from citadel_consul.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

_READINGS = 20

Spawn = Callable[[Coroutine[object, object, None]], None]


class Watch:
    """The runs of this agent, by instance, and the records that outlive it. ``spawn`` has a coroutine run by itself."""

    def __init__(self, launches: Launches, spawn: Spawn) -> None:
        self.runs: dict[Instance, Run] = {}
        self.exit_sink: ExitSink | None = None
        self.notice_sink: NoticeSink | None = None
        self._launches = launches
        self._spawn = spawn
        self._properties: dict[tuple[str, str], dict[str, object]] = {}
        self._signals: Counter[tuple[str, str]] = Counter()

    # Looking.

    async def look(self, bus: SystemdBus, spec: SystemdBackend) -> Sighting:
        """A unit as it is now; what changes is heard from now on."""
        path = await bus.load(spec.unit)
        await bus.watch(path)
        found = await self._read_unit(bus, spec.unit, path)
        self._properties[bus.name, path] = {name: found.get(name) for name in PROPERTIES}
        return Sighting(spec, bus, path, UnitState.of(found))

    async def look_at(self, run: Run) -> None:
        """Look at what runs, and take what is found as if it had been heard."""
        self.heard(run.bus, run.seen.path, await self._read_unit(run.bus, run.unit, run.seen.path))

    async def look_again(self, bus: SystemdBus) -> None:
        """Look at everything that runs by way of a bus: something may have happened that was not heard."""
        for run in [run for run in self.runs.values() if run.bus is bus]:
            try:
                await self.look_at(run)
            except BackendError as error:
                _log.warning("%s: %s", run.instance, error)

    async def _read_unit(self, bus: SystemdBus, unit: str, path: str) -> dict[str, object]:
        """The properties of a unit, not older than anything that was heard of it.

        What is heard while they are on their way is newer than they are, so they are read again. Of a unit that never
        comes to rest something is heard all the time, and that sets right what is out of date.
        """
        found: dict[str, object] = {}
        for _ in range(_READINGS):
            before = self._signals[bus.name, path]
            found = await bus.properties(unit, path)
            if self._signals[bus.name, path] == before:
                break
        return found

    def heard(self, bus: SystemdBus, path: str, changed: Mapping[str, object]) -> None:
        """Take the properties of a unit that have changed."""
        self._signals[bus.name, path] += 1
        known = self._properties.setdefault((bus.name, path), {})
        known.update((name, value) for name, value in changed.items() if name in PROPERTIES)
        for run in list(self.runs.values()):
            if run.bus is bus and run.seen.path == path:
                run.state = UnitState.of(known)
                self._judge(run)

    # Keeping.

    def track(self, run: Run) -> None:
        """Watch over a run. Raises BackendError if another instance runs the same unit."""
        for other in self.runs.values():
            if other.instance != run.instance and (other.bus, other.seen.path) == (run.bus, run.seen.path):
                raise BackendError(f"backend.unit: {run.unit} is what {other.instance} runs: one unit is one instance")
        self.runs[run.instance] = run

    def forget(self, run: Run) -> None:
        """Watch over it no longer."""
        if self.runs.get(run.instance) is run:
            del self.runs[run.instance]

    def begin(self, run: Run) -> None:
        """Take note that a run has begun, whoever began it."""
        run.handle = run.handle_now()
        run.restarts = run.state.restarts
        self._record(run)
        run.begun.set()

    def read(self, instance: Instance) -> LaunchRecord | None:
        """The record of an instance. One that makes no sense is as good as none: the unit's name says what is meant."""
        try:
            return self._launches.read(instance)
        except UnreadableRecord as error:
            _log.warning("%s: its record is not used: %s", instance, error)
            return None

    def write(self, instance: Instance, record: LaunchRecord | None) -> None:
        """Keep a record, or none. It is good to have and can be done without, so that a full disk is only logged."""
        try:
            if record is None:
                self._launches.forget(instance)
            else:
                self._launches.write(instance, record)
        except OSError as error:
            _log.warning("%s: cannot write its record %s: %s", instance, self._launches.path(instance), error)

    def intend(self, run: Run) -> LaunchRecord | None:
        """Put on record that a unit is about to be run for an instance; returns the record before.

        At the very first time it is noted, and told, what else has a hand in the unit.
        """
        before = self.read(run.instance)
        noted = before.noted if before is not None else {}
        if not noted:
            noted = {"restart": run.state.restart, "enabled": run.state.enabled}
            self._tell_who_else(run)
        self.write(run.instance, LaunchRecord(run.generation, run.seen.spec, run.handle, None, noted))
        return before

    # What follows.

    def _judge(self, run: Run) -> None:
        state = run.state
        if run.handle is None:
            if state.invocation in ("", run.previous) or not state.has_begun:
                return
            self.begin(run)
        elif run.is_another:
            self._take_another_run(run)
        elif run.handle.pid is None and state.is_up and state.main_pid:
            self.begin(run)  # what went before its program is over
        if not (run.ended.is_set() or state.is_up or run.is_left_to_systemd):
            self._end(run, state.exit())
        if run.ended.is_set() and state.is_settled and run.ends_for_good:
            self._settle(run)
        elif state.is_settled and run.is_left_to_systemd and not (run.in_doubt or run.ended.is_set()):
            run.in_doubt = True
            self._spawn(self._find_out(run))
        run.changed.set()

    def _take_another_run(self, run: Run) -> None:
        """The unit was started again, and not by us."""
        if run.ended.is_set():
            return  # being seen to
        if run.is_left_to_systemd:
            self.begin(run)
            self.tell(run, f"{run.unit} has ended, and systemd has started it again (restarts: systemd)", run.handle)
        elif run.requested:
            self.begin(run)
        elif run.was_restarted_by_systemd:
            self._end(run, Exit.unknown(f"systemd restarted {run.unit} before anything else could be heard"))
        else:
            self._end(run, Exit.unknown(f"somebody else restarted {run.unit}"), seen_to=True)
            self._settle(run)

    def _end(self, run: Run, exit_: Exit, *, seen_to: bool = False) -> None:
        run.exit = exit_
        self._record(run)
        run.ended.set()
        if not (seen_to or run.requested or (run.state.is_settled and run.ends_for_good)):
            self._spawn(self._see_to(run))
        if self.exit_sink is not None:
            self.exit_sink(InstanceExited(run.instance, run.generation, exit_, run.requested))

    async def _see_to(self, run: Run) -> None:
        await ending.settle(run, self.look_at)
        self._settle(run)

    async def _find_out(self, run: Run) -> None:
        """Whether systemd has given up a unit whose restarts are left to it."""
        try:
            await self.look_at(run)
        except (BackendError, BackendUnavailable) as error:
            _log.warning("%s: %s", run.instance, error)  # when systemd is back it is looked at again
            return
        finally:
            run.in_doubt = False
        if run.state.is_settled and run.is_left_to_systemd and not run.ended.is_set():
            self._end(run, run.state.exit(), seen_to=True)
            self._settle(run)

    def _settle(self, run: Run) -> None:
        run.settled.set()
        self.forget(run)

    def _record(self, run: Run) -> None:
        before = self.read(run.instance)
        noted = before.noted if before is not None else {}
        self.write(run.instance, LaunchRecord(run.generation, run.seen.spec, run.handle, run.exit, noted))

    # Telling.

    def _tell_who_else(self, run: Run) -> None:
        unit, state = run.unit, run.state
        if state.restarts_itself and run.seen.spec.restarts == "citadel":
            self.tell(
                run,
                f"{unit} has Restart={state.restart}, and citadel restarts it, too: at every end, what systemd plans "
                f"is cancelled. `restarts: systemd` leaves it to systemd; Restart=no in a drop-in makes it plain",
            )
        elif run.is_left_to_systemd:
            self.tell(run, f"{unit} is restarted by systemd (Restart={state.restart}); if that gives up, by citadel")
        if state.enabled == "enabled":
            self.tell(
                run,
                f"{unit} is enabled: at boot systemd starts it by itself, before citadel and without regard to order. "
                f"`systemctl disable {unit}` leaves it to citadel",
            )

    def tell(self, run: Run, message: str, handle: Handle | None = None) -> None:
        """Tell people what they should know of a unit."""
        if self.notice_sink is not None:
            self.notice_sink(Notice(run.instance, message, handle))
