"""The process backend: runs services as processes of its own, which live on when the agent dies.

The life of an instance, and what is on record when the agent is killed in between::

    intent ──▶ exec ──▶ record ──▶ … runs … ──▶ exit ──▶ swept
       └── a process may bear this marker ──┘└─ pid, start time, boot ─┘ └─ leftovers bear the marker

* Killed before the exec: nobody bears the marker, so nothing runs.
* Killed between exec and record: the process is found by its marker (or by its log, see :mod:`.family`).
* Killed later: pid, start time and boot id prove the process; a number that came round again fails the proof.

The end of a service is the end of *all* its processes. An ordered stop signals the process group and gives the main
process the time to end its own children, wherever they went; what then remains is signalled, too, and at the deadline
everything is killed. If the main process ends by itself, what it left behind is ended before a successor may start,
because a leftover holds the port, the lock file or the data.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from citadel_consul.backends import adoption, ending, family, launching, logs, pidfd, procfs, reaper, spawn
from citadel_consul.backends.base import (
    Adopted,
    Exit,
    ExitSink,
    Gone,
    Handle,
    InstanceExited,
    Launch,
    NoticeSink,
    Running,
    Unproven,
)
from citadel_consul.backends.journal import Journal, Record, UnreadableRecord
from citadel_consul.backends.launching import write_if_possible
from citadel_consul.backends.procfs import Process
from citadel_consul.backends.supervised import Supervised
from citadel_consul.core import model
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

# What a service leaves behind after an end that nobody asked for gets this long to end politely: its successor waits.
LEFTOVER_GRACE_SECONDS = 2.0
# How often logs are measured and orphans reaped. A log outgrows its bound by what is written in that time.
TEND_SECONDS = 1.0


class ProcessBackend:
    """See :class:`citadel_consul.backends.base.Backend`. One object serves one stack on this machine.

    The records and logs are below ``state_dir``, which has to be a local folder that survives the agent. Two agents
    of the same node must not share it; the agent's lock in Consul sees to that.
    """

    def __init__(
        self,
        state_dir: Path,
        stack: str,
        *,
        leftover_grace_seconds: float = LEFTOVER_GRACE_SECONDS,
        tend_seconds: float = TEND_SECONDS,
    ) -> None:
        self._state_dir = state_dir
        self._stack = stack
        self._journal = Journal(state_dir, stack)
        self._leftover_grace_seconds = leftover_grace_seconds
        self._tend_seconds = tend_seconds
        self._sink: ExitSink | None = None
        self._running: dict[Instance, Supervised] = {}
        self._locks: defaultdict[Instance, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._strangers: dict[str, list[Process]] = {}
        self._tasks = asyncio.TaskGroup()
        self._lookout = family.Lookout()
        self._unrotated: set[Instance] = set()

    async def __aenter__(self) -> Self:
        spawn.stop_ignoring_signals()
        self._boot_id = procfs.boot_id()
        self._strangers = family.by_place(await self._lookout.look())
        self._was_subreaper = reaper.is_subreaper()
        reaper.set_subreaper(True)
        await self._tasks.__aenter__()
        self._tending = self._tasks.create_task(self._tend())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        self._tending.cancel()
        for run in self._running.values():
            loop.remove_reader(run.pidfd)
            if run.settling:
                run.settling.cancel()
        try:
            # A group of tasks needs to see a cancellation (it may be its own); other errors it would wrap.
            cancelled = isinstance(error, asyncio.CancelledError)
            await self._tasks.__aexit__(*((kind, error, trace) if cancelled else (None, None, None)))
        finally:
            for run in self._running.values():
                run.release()
            self._running.clear()
            reaper.set_subreaper(self._was_subreaper)

    def set_exit_sink(self, sink: ExitSink) -> None:
        """See :meth:`Backend.set_exit_sink`."""
        self._sink = sink

    def set_notice_sink(self, sink: NoticeSink) -> None:
        """See :meth:`Backend.set_notice_sink`. Nobody but the agent deals with its processes: there is none to give."""

    async def start(self, launch: Launch) -> Handle:
        """See :meth:`Backend.start`. Both outputs of the program go to its log."""
        instance = launch.instance
        async with self._locks[instance]:
            if launch.stack != self._stack:
                raise BackendError(f"{instance}: it is of stack {launch.stack!r}, this backend serves {self._stack!r}")
            run = self._running.get(instance)
            if run is not None and (run.requested or run.exited.is_set()):
                await self._end(run, run.stop_timeout_seconds)  # joins the stop, or finishes a cancelled one
                run = None
            if run is None:
                found = await self._resume(instance, _own_spec(launch), launch.stop_timeout_seconds)
                if isinstance(found, Unproven):
                    raise BackendError(f"{instance}: {found.reason}")
                run = self._running.get(instance)
            if run is None:
                return self._launch(launch)
        if run.record.generation != launch.generation:
            raise BackendError(
                f"{instance}: generation {run.record.generation} still runs (process {run.record.pid}): "
                f"it has to be stopped before generation {launch.generation} can start"
            )
        return run.record.handle

    async def adopt(self, launch: Launch) -> Adopted:
        """See :meth:`Backend.adopt`."""
        instance = launch.instance
        async with self._locks[instance]:
            run = self._running.get(instance)
            if run is not None and not run.exited.is_set():
                return Running(run.record.handle, run.record.generation)
            if run is not None:
                await self._settled(run)
            return await self._resume(instance, _own_spec(launch), launch.stop_timeout_seconds)

    async def survivors(self) -> tuple[Instance, ...]:
        """See :meth:`Backend.survivors`."""
        return tuple(
            instance
            for instance in self._journal.instances()
            if instance not in self._running and self._may_survive(instance)
        )

    async def stop(self, instance: Instance, timeout_seconds: float) -> Exit | None:
        """See :meth:`Backend.stop`."""
        async with self._locks[instance]:
            run = self._running.get(instance)
            if run is None:
                found = await self._resume(instance, None, timeout_seconds)
                if isinstance(found, Unproven):
                    raise BackendError(f"{instance}: {found.reason}")
                run = self._running.get(instance)
        if run is None:
            return None
        await self._end(run, timeout_seconds)
        return run.record.exit

    async def give_back(self, instance: Instance) -> None:
        """See :meth:`Backend.give_back`. Nothing was changed, and there is nobody to give a process to."""

    def forget(self, instance: Instance) -> None:
        """See :meth:`Backend.forget`. Its log is kept for a week, since people look for it after the end."""
        if instance in self._running or self._may_survive(instance):
            return
        try:
            self._journal.forget(instance)
        except OSError as error:
            _log.warning("%s: its record stays: %s", instance, error)
        self._locks.pop(instance, None)
        folder = self._log_path(instance).parent
        logs.sweep(folder, {known.service for known in self._journal.instances() if known.node == instance.node})

    async def reload(self, instance: Instance) -> None:
        """See :meth:`Backend.reload`. Sends ``reload_signal`` to the main process alone."""
        run = self._running.get(instance)
        if run is None or run.exited.is_set():
            raise BackendError(f"{instance}: it does not run, so there is nothing to reload")
        if run.spec is None or run.spec.reload_signal is None:
            raise BackendError(f"{instance}: backend.reload_signal: not set, so it cannot be reloaded, only restarted")
        pidfd.send(run.pidfd, spawn.signal_named(instance, "reload_signal", run.spec.reload_signal))

    def _launch(self, order: Launch) -> Handle:
        instance, spec = order.instance, _own_spec(order)
        if spec is None:
            raise BackendError(f"{instance}: backend.kind: {order.backend.kind!r} is not for processes of the agent")
        launched = launching.launch(self._journal, self._log_path(instance), order, spec)
        self._watch(instance, launched.record, launched.pidfd, launched.child, spec, order.stop_timeout_seconds)
        return launched.record.handle

    # Adopting.

    async def _resume(
        self, instance: Instance, spec: model.ProcessBackend | None, stop_timeout_seconds: float
    ) -> Adopted:
        """Find what an earlier agent left, and watch it or finish it off."""
        found = adoption.examine(self._journal, instance, self._strangers)
        if isinstance(found, adoption.Alive) and found.record.identity is not None:
            descriptor = pidfd.open_verified(found.record.identity)
            if descriptor is not None:
                write_if_possible(self._journal, instance, found.record)
                self._watch(instance, found.record, descriptor, None, spec, stop_timeout_seconds)
                return Running(found.record.handle, found.record.generation)
            found = adoption.examine(self._journal, instance, self._strangers)  # it ended between the two looks
        if isinstance(found, Unproven):
            return found
        if isinstance(found, adoption.Alive):
            raise BackendUnavailable(f"{instance}: process {found.record.pid} is there and cannot be watched")
        if found.record is None:
            return Gone()
        record = await self._finish(instance, found.record, stop_timeout_seconds)
        return Gone(record.generation, record.exit)

    async def _finish(self, instance: Instance, record: Record, stop_timeout_seconds: float) -> Record:
        """End what a dead main process left behind."""
        if record.swept:
            return record
        grace = min(self._leftover_grace_seconds, stop_timeout_seconds)
        await ending.end_members(self._lookout, record.evidence, signal.Signals[record.stop_signal], grace)
        finished = replace(record, swept=True)
        write_if_possible(self._journal, instance, finished)
        return finished

    def _may_survive(self, instance: Instance) -> bool:
        try:
            record = self._journal.read(instance)
        except UnreadableRecord:
            return True
        return record is not None and not record.swept and record.boot_id == self._boot_id

    # Watching and ending.

    def _watch(
        self,
        instance: Instance,
        record: Record,
        descriptor: int,
        child: subprocess.Popen[bytes] | None,
        spec: model.ProcessBackend | None,
        stop_timeout_seconds: float,
    ) -> None:
        run = Supervised(instance, record, descriptor, child, spec, stop_timeout_seconds)
        self._running[instance] = run
        asyncio.get_running_loop().add_reader(descriptor, self._on_exit, run)

    def _on_exit(self, run: Supervised) -> None:
        asyncio.get_running_loop().remove_reader(run.pidfd)
        known = run.note_exit()
        write_if_possible(self._journal, run.instance, run.record)
        run.settling = self._tasks.create_task(self._settle(run))
        run.exited.set()
        if self._sink is not None:
            self._sink(InstanceExited(run.instance, run.record.generation, known, run.requested))

    async def _settle(self, run: Supervised) -> None:
        """End what the main process left behind, then let go of it."""
        grace = min(self._leftover_grace_seconds, run.stop_timeout_seconds)
        if run.deadline is not None:
            grace = run.deadline - asyncio.get_running_loop().time()
        try:
            await ending.end_members(self._lookout, run.evidence, run.stop_signal, grace)
        except (BackendError, BackendUnavailable) as error:
            run.failure = f"{run.instance}: {error}"
        else:
            run.record = replace(run.record, swept=True)
            write_if_possible(self._journal, run.instance, run.record)
            run.release()
            del self._running[run.instance]
        run.settled.set()

    async def _settled(self, run: Supervised) -> None:
        """Wait until nothing is left of an ending instance; try again what failed before."""
        if run.failure is not None:
            run.failure = None
            run.settled.clear()
            run.settling = self._tasks.create_task(self._settle(run))
        await run.settled.wait()
        if run.failure is not None:
            raise BackendUnavailable(run.failure)

    async def _end(self, run: Supervised, timeout_seconds: float) -> None:
        if not run.exited.is_set():
            deadline = asyncio.get_running_loop().time() + timeout_seconds
            run.deadline = deadline if run.deadline is None else min(run.deadline, deadline)
            # Before the signal, while the parents live: whoever leaves the group is known by its parent only.
            await self._note_members(run)
            self._signal_group(run)
            try:
                async with asyncio.timeout_at(run.deadline):
                    await run.exited.wait()
            except TimeoutError:
                await self._kill(run)
        await self._settled(run)

    async def _note_members(self, run: Supervised) -> None:
        found = family.members(await self._lookout.look(), run.evidence)
        run.known |= {process.identity for process in found}

    def _signal_group(self, run: Supervised) -> None:
        if run.exited.is_set() or run.signalled:
            return
        run.signalled = True
        group = run.identity[0]
        # Its main process is watched and has not ended, so the group's number is still its own. SIGCONT, because a
        # stopped process takes the other signal only then.
        for number in (run.stop_signal, signal.SIGCONT):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)

    async def _kill(self, run: Supervised) -> None:
        await self._note_members(run)
        pidfd.send(run.pidfd, signal.SIGKILL)
        try:
            async with asyncio.timeout(ending.KILL_SECONDS):
                await run.exited.wait()
        except TimeoutError:
            raise BackendUnavailable(
                f"{run.instance}: process {run.identity[0]} does not end even on SIGKILL: it is stuck in the kernel"
            ) from None

    # Tending.

    async def _tend(self) -> None:
        orphans = reaper.Reaper()
        while True:
            await asyncio.sleep(self._tend_seconds)
            for run in list(self._running.values()):
                if run.spec is not None:
                    await self._rotate(run.instance, run.spec)
            try:
                orphans.sweep({run.identity[0] for run in self._running.values()})
            except (BackendError, BackendUnavailable) as error:
                _log.warning("cannot look for orphans to reap: %s", error)

    async def _rotate(self, instance: Instance, spec: model.ProcessBackend) -> None:
        path = self._log_path(instance)
        try:
            if logs.has_outgrown(path, spec.log_bytes):
                # In a thread, because copying many megabytes would hold up the loop.
                await asyncio.to_thread(logs.rotate, path, spec.log_bytes, spec.log_files)
        except OSError as error:
            if instance not in self._unrotated:  # said once, not every second
                self._unrotated.add(instance)
                _log.warning("%s: cannot rotate its log %s: %s", instance, path, error)
        else:
            self._unrotated.discard(instance)

    def _log_path(self, instance: Instance) -> Path:
        return logs.log_path(self._state_dir, self._stack, instance.node, instance.service)


def _own_spec(launch: Launch) -> model.ProcessBackend | None:
    return launch.backend if isinstance(launch.backend, model.ProcessBackend) else None
