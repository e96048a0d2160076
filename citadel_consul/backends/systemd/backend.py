"""The systemd backend: units of a machine, started and stopped by systemd, watched over D-Bus.

A unit belongs to the machine and its name is its identity, so nothing has to be proven here: whoever started it, a unit
that runs is the service, and is taken over as it is. What a record adds is which *generation* runs and how the last one
ended. The InvocationID, new at every start, tells this run from the one before: a unit that somebody else restarted is
another run, and the end of the one before is told.

systemd serializes what is ordered of a unit: a start during a stop waits for its end, and no job runs twice.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from citadel_consul.backends.base import Adopted, Exit, ExitSink, Gone, Handle, Launch, NoticeSink, Running
from citadel_consul.backends.launches import Launches
from citadel_consul.backends.systemd import ending, refusals
from citadel_consul.backends.systemd.bus import SystemdBus, default_address
from citadel_consul.backends.systemd.run import Run, Sighting
from citadel_consul.backends.systemd.watch import Watch
from citadel_consul.core import model
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError, BackendUnavailable

# A start that systemd has taken and not begun after so long waits for something of its own (other units, a condition).
BEGIN_SECONDS = 60.0


class SystemdBackend:
    """See :class:`citadel_consul.backends.base.Backend`. One object serves one stack on this machine.

    ``addresses`` are D-Bus addresses by the name of the bus (``system``, ``user``), for those that are elsewhere than
    usual.
    """

    def __init__(self, state_dir: Path, stack: str, *, addresses: Mapping[str, str] | None = None) -> None:
        self._launches = Launches(state_dir, stack, "systemd")
        self._watch = Watch(self._launches, self._spawn)
        self._addresses = addresses or {}
        self._buses: dict[str, SystemdBus] = {}
        self._locks: defaultdict[Instance, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        # A group of tasks needs to see a cancellation (it may be its own); other errors it would wrap.
        cancelled = isinstance(error, asyncio.CancelledError)
        await self._group.__aexit__(*((kind, error, trace) if cancelled else (None, None, None)))

    def set_exit_sink(self, sink: ExitSink) -> None:
        """See :meth:`Backend.set_exit_sink`."""
        self._watch.exit_sink = sink

    def set_notice_sink(self, sink: NoticeSink) -> None:
        """See :meth:`Backend.set_notice_sink`."""
        self._watch.notice_sink = sink

    async def start(self, launch: Launch) -> Handle:
        """See :meth:`Backend.start`. A unit that runs already is taken over."""
        instance, spec = launch.instance, launch.backend
        if not isinstance(spec, model.SystemdBackend):
            raise BackendError(f"{instance}: backend.kind: {spec.kind!r} is not for units of systemd")
        async with self._locks[instance]:
            with _about(instance):
                run = self._run_of(instance)
                if run is not None and (run.requested or run.ended.is_set()):
                    await ending.end(run, run.stop_timeout_seconds)  # joins the stop, or finishes a cancelled one
                    run = None
                seen: Sighting | None = None
                if run is None:
                    _, seen = await self._resume(launch)
                    run = self._run_of(instance)
                if run is None:
                    seen = seen if seen is not None and seen.spec == spec else await self._look(spec)
                    return await self._begin(launch, seen)
        if run.generation == launch.generation and run.handle is not None:
            return run.handle
        raise BackendError(
            f"{instance}: generation {run.generation} still runs ({run.unit}): "
            f"it has to be stopped before generation {launch.generation} can start"
        )

    async def adopt(self, launch: Launch) -> Adopted:
        """See :meth:`Backend.adopt`. Whatever runs under the name of the unit is ours, so that nothing is unproven."""
        instance = launch.instance
        async with self._locks[instance]:
            with _about(instance):
                run = self._run_of(instance)
                if run is not None and run.handle is not None and not run.ended.is_set():
                    return Running(run.handle, run.generation)
                if run is not None:
                    await run.settled.wait()
                found, _ = await self._resume(launch)
                return found

    async def survivors(self) -> tuple[Instance, ...]:
        """See :meth:`Backend.survivors`."""
        found = []
        for instance in filter(self._launches.may_run, self._launches.instances()):
            record = self._watch.read(instance)
            if instance in self._watch.runs or record is None or not isinstance(record.backend, model.SystemdBackend):
                continue
            with _about(instance):
                seen = await self._look(record.backend)
            if seen.state.is_up:
                found.append(instance)
        return tuple(found)

    async def stop(self, instance: Instance, timeout_seconds: float) -> Exit | None:
        """See :meth:`Backend.stop`. How it is asked to stop is for the unit to say (``KillSignal=``, ``ExecStop=``)."""
        with _about(instance):
            async with self._locks[instance]:
                run = self._run_of(instance) or await self._recorded_run(instance, timeout_seconds)
            if run is None:
                return None
            await ending.end(run, timeout_seconds)
        return run.exit

    async def give_back(self, instance: Instance) -> None:
        """See :meth:`Backend.give_back`. Nothing was changed about a unit: it is systemd's, and is only let go of."""
        async with self._locks[instance]:
            run = self._watch.runs.get(instance)
            if run is not None:
                self._watch.forget(run)
            self._launches.forget(instance)

    def forget(self, instance: Instance) -> None:
        """See :meth:`Backend.forget`."""
        if instance not in self._watch.runs:
            self._launches.forget_ended(instance)
            self._locks.pop(instance, None)

    async def reload(self, instance: Instance) -> None:
        """See :meth:`Backend.reload`."""
        run = self._run_of(instance)
        if run is None or not run.is_up:
            raise BackendError(f"{instance}: it does not run, so there is nothing to reload")
        unit = run.unit
        with _about(instance):
            if not run.state.can_reload:
                raise BackendError(f"backend.unit: {unit} has no ExecReload=, so it cannot be reloaded, only restarted")
            result = await run.bus.result(await run.bus.job(unit, "ReloadUnit"))
            if result != "done":
                raise BackendError(f"{unit} could not be reloaded ({result}): `systemctl status {unit}` tells more")

    # Starting.

    async def _begin(self, launch: Launch, seen: Sighting) -> Handle:
        unit = seen.spec.unit
        unfit = refusals.not_loaded(unit, seen.state)
        if unfit is not None:
            raise unfit
        run = Run(launch.instance, launch.generation, seen, launch.stop_timeout_seconds)
        self._watch.track(run)
        before = self._watch.intend(run)
        try:
            await self._order_start(run)
        except BackendError:
            self._watch.forget(run)
            self._watch.write(run.instance, before)
            raise
        except BaseException:
            if run.handle is None:
                self._watch.forget(run)  # the record stays: it may run, and then it is of this generation
            raise
        if run.handle is None:
            self._watch.forget(run)
            raise BackendUnavailable(f"{unit} was told to start and has not begun after {BEGIN_SECONDS:g} s")
        return run.handle

    async def _order_start(self, run: Run) -> None:
        """Have systemd start it, and wait until it has begun.

        How often it may be started is for the leader's budget to say, so that StartLimitBurst= does not count.
        """
        result = ""
        for is_first in (True, False):
            if run.state.active == "failed" or not is_first:
                await run.bus.reset_failed(run.unit)
            job = await run.bus.job(run.unit, "RestartUnit" if run.state.is_done else "StartUnit")
            result = await self._until_begun(run, job)
            if not result or run.begun.is_set():
                return
            if run.state.result != "start-limit-hit":
                break
        raise refusals.failed_job(run.unit, result, run.state)

    async def _until_begun(self, run: Run, job: str) -> str:
        """Wait until it has begun, or until its job has ended: then with its result."""
        async with asyncio.TaskGroup() as group:
            begun = group.create_task(run.begun.wait())
            ended = group.create_task(_outcome(run.bus, job))
            await asyncio.wait({begun, ended}, timeout=BEGIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            begun.cancel()
            ended.cancel()
        if run.begun.is_set() or ended.cancelled():
            return ""
        result = ended.result()
        if isinstance(result, BackendUnavailable):
            raise result
        await self._watch.look_at(run)
        return result

    # Finding.

    async def _resume(self, launch: Launch) -> tuple[Adopted, Sighting | None]:
        """Find what runs, whoever started it, and watch it. The unit as it was seen comes with the answer."""
        instance, record = launch.instance, self._watch.read(launch.instance)
        open_ = record if record is not None and record.exit is None else None
        spec = open_.backend if open_ is not None else launch.backend
        if not isinstance(spec, model.SystemdBackend):
            return (Gone() if record is None else Gone(record.generation, record.exit)), None
        seen = await self._look(spec)
        if seen.state.is_up:
            generation = open_.generation if open_ is not None else launch.generation
            run = Run(instance, generation, seen, launch.stop_timeout_seconds)
            self._watch.track(run)
            self._watch.intend(run)
            self._watch.begin(run)
            if open_ is None:
                self._watch.tell(run, f"{run.unit} ran already, and is taken over as it is")
            return Running(run.handle_now(), generation), seen
        if open_ is not None:
            # While no agent looked; systemd may still know how.
            same = open_.handle is not None and open_.handle.invocation == seen.state.invocation
            record = replace(open_, exit=seen.state.exit() if same else Exit.unknown("no agent saw its end"))
            self._watch.write(instance, record)
        return (Gone() if record is None else Gone(record.generation, record.exit)), seen

    async def _recorded_run(self, instance: Instance, stop_timeout_seconds: float) -> Run | None:
        """What runs of an instance by its record alone."""
        record = self._watch.read(instance)
        if record is None or record.exit is not None:
            return None
        await self._resume(Launch("", instance, record.generation, record.backend, stop_timeout_seconds))
        return self._run_of(instance)

    def _run_of(self, instance: Instance) -> Run | None:
        """What runs of an instance as far as this agent knows; not what it never got to see begin."""
        run = self._watch.runs.get(instance)
        return run if run is not None and run.handle is not None else None

    async def _look(self, spec: model.SystemdBackend) -> Sighting:
        bus = self._buses.get(spec.bus)
        if bus is None:
            address = self._addresses.get(spec.bus) or default_address(spec.bus)
            bus = SystemdBus(spec.bus, address, on_change=self._watch.heard, on_return=self._watch.look_again)
            self._buses[spec.bus] = bus
            self._spawn(bus.run())
        return await self._watch.look(bus, spec)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _outcome(bus: SystemdBus, job: str) -> str | BackendUnavailable:
    """The result of a job. A failure is returned: out of a group of tasks it would come as another type."""
    try:
        return await bus.result(job)
    except BackendUnavailable as failure:
        return failure


@contextmanager
def _about(instance: Instance) -> Iterator[None]:
    """Say in every error whose it is."""
    try:
        yield
    except BackendUnavailable as error:
        raise BackendUnavailable(f"{instance}: {error}") from error
    except BackendError as error:
        raise BackendError(f"{instance}: {error}") from error
