"""What the backends have in common that have somebody else run a service: the Docker engine, a set of commands.

**The name is the identity.** Whoever runs the service has a name for it (a container, that which a status command looks
at), and the machine has one thing of that name. So what runs under it is the service, whoever started it: it is taken
over as it is, instead of being started a second time or being left alone. Only when it cannot be told *whether*, or
which of several, is the answer :class:`Unproven`.

**Each start is another run.** A handle holds what its manager gives anew at every start. So an end that was missed is
noticed even if the service runs again by now.

A kind of backend is made of what it can ask its manager: see the abstract methods of :class:`ExternalBackend`. What it
may leave to this class: order and idempotence of calls, records, generations, and exactly one report of each end.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

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
from citadel_consul.backends.launches import Launches, LaunchRecord
from citadel_consul.backends.notes import Notes
from citadel_consul.core import model
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

S = TypeVar("S", bound=model.Backend)


@dataclass(frozen=True, slots=True)
class Up:
    """It runs."""

    handle: Handle


@dataclass(frozen=True, slots=True)
class Down:
    """It does not run. ``exit`` is how it last ended, if the manager knows."""

    exit: Exit | None = None


Sight = Up | Down | Unproven


@dataclass(slots=True, eq=False)
class Run(Generic[S]):
    """One run under watch, from its start (or from when it was found) to its end.

    ``spec`` is what it was started by. ``requested`` says that a stop was asked for, and ``deadline`` until when, on
    the clock of the loop, the stop under way is polite. ``exit`` is set once ``exited`` is.
    """

    instance: Instance
    generation: int
    spec: S
    handle: Handle
    stop_timeout_seconds: float
    requested: bool = False
    deadline: float | None = None
    exit: Exit | None = None
    exited: asyncio.Event = field(default_factory=asyncio.Event)


class ExternalBackend(ABC, Generic[S]):
    """See :class:`citadel_consul.backends.base.Backend`. One object serves one stack on this machine."""

    def __init__(self, state_dir: Path, stack: str, spec_type: type[S], kind: str) -> None:
        self._stack = stack
        self._spec_type = spec_type
        self._kind = kind
        self._notes = Notes(Launches(state_dir, stack, kind))
        self._runs: dict[Instance, Run[S]] = {}
        self._locks: defaultdict[Instance, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._sink: ExitSink | None = None
        self._notice_sink: NoticeSink | None = None
        self._tasks = asyncio.TaskGroup()
        self._background: set[asyncio.Task[Any]] = set()

    # What a kind of backend has to be able to do. Each raises BackendError or BackendUnavailable.

    @abstractmethod
    async def _look(self, instance: Instance, spec: S, record: LaunchRecord | None) -> Sight:
        """Whether it runs. ``record`` is the last launch, if ``spec`` is its spec."""

    @abstractmethod
    async def _begin(self, launch: Launch, spec: S) -> Handle:
        """Start what does not run. It may have ended already when this returns."""

    @abstractmethod
    async def _attend(self, run: Run[S]) -> None:
        """Begin to watch; call :meth:`_note_exit` at the end. If it has ended already, that is noticed, too."""

    @abstractmethod
    def _leave(self, run: Run[S]) -> None:
        """Watch no longer."""

    @abstractmethod
    async def _ask_to_end(self, run: Run[S]) -> None:
        """Have it end by itself; called by each stop, also by one that joins another. Need not wait for the end."""

    @abstractmethod
    async def _force(self, run: Run[S]) -> None:
        """End it by force; its end has been noted when this returns."""

    @abstractmethod
    async def _have_reload(self, run: Run[S]) -> None:
        """Have it read its configuration again."""

    # The protocol.

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._background:
            task.cancel()
        try:
            # A group of tasks needs to see a cancellation (it may be its own); other errors it would wrap.
            cancelled = isinstance(error, asyncio.CancelledError)
            await self._tasks.__aexit__(*((kind, error, trace) if cancelled else (None, None, None)))
        finally:
            for run in self._runs.values():
                self._leave(run)
            self._runs.clear()

    def set_exit_sink(self, sink: ExitSink) -> None:
        """See :meth:`Backend.set_exit_sink`."""
        self._sink = sink

    def set_notice_sink(self, sink: NoticeSink) -> None:
        """See :meth:`Backend.set_notice_sink`."""
        self._notice_sink = sink

    async def start(self, launch: Launch) -> Handle:
        """See :meth:`Backend.start`."""
        instance = launch.instance
        with _about(instance):
            spec = self._own_spec(launch)
            if launch.stack != self._stack:
                raise BackendError(f"it is of stack {launch.stack!r}, this backend serves {self._stack!r}")
            if spec is None:
                raise BackendError(f"backend.kind: {launch.backend.kind!r} is not {self._kind!r}")
            async with self._locks[instance]:
                run = await self._started(launch, spec)
            if run.generation != launch.generation:
                raise BackendError(
                    f"generation {run.generation} still runs ({run.handle.unit}): "
                    f"it has to be stopped before generation {launch.generation} can start"
                )
            return run.handle

    async def _started(self, launch: Launch, spec: S) -> Run[S]:
        instance = launch.instance
        run = self._runs.get(instance)
        if run is not None and run.requested:
            await self._end(run, run.stop_timeout_seconds)  # joins the stop, or finishes a cancelled one
            run = None
        if run is None:
            found = await self._resume(instance, launch)
            if isinstance(found, Unproven):
                raise BackendError(found.reason)
            run = self._runs.get(instance)
        return run if run is not None else await self._launch(launch, spec)

    async def adopt(self, launch: Launch) -> Adopted:
        """See :meth:`Backend.adopt`."""
        with _about(launch.instance):
            async with self._locks[launch.instance]:
                run = self._runs.get(launch.instance)
                if run is not None:
                    return Running(run.handle, run.generation)
                return await self._resume(launch.instance, launch)

    async def survivors(self) -> tuple[Instance, ...]:
        """See :meth:`Backend.survivors`."""
        return tuple(instance for instance in self._notes.unended() if instance not in self._runs)

    async def stop(self, instance: Instance, timeout_seconds: float) -> Exit | None:
        """See :meth:`Backend.stop`."""
        with _about(instance):
            async with self._locks[instance]:
                run = self._runs.get(instance)
                if run is None:
                    found = await self._resume(instance, None)
                    if isinstance(found, Unproven):
                        raise BackendError(found.reason)
                    run = self._runs.get(instance)
            if run is None:
                return None
            await self._end(run, timeout_seconds)
        return run.exit

    async def reload(self, instance: Instance) -> None:
        """See :meth:`Backend.reload`."""
        with _about(instance):
            run = self._runs.get(instance)
            if run is None:
                raise BackendError("it does not run, so there is nothing to reload")
            await self._have_reload(run)

    async def give_back(self, instance: Instance) -> None:
        """See :meth:`Backend.give_back`. Nobody watches it any more; found again, it is taken in hand anew."""
        with _about(instance):
            async with self._locks[instance]:
                await self._put_back(instance, self._notes.noted(instance))
                run = self._runs.pop(instance, None)
                if run is not None:
                    self._leave(run)
                self._notes.forget(instance)

    def forget(self, instance: Instance) -> None:
        """See :meth:`Backend.forget`."""
        if instance not in self._runs:
            self._notes.forget_ended(instance)
            self._locks.pop(instance, None)

    async def _put_back(self, instance: Instance, noted: Mapping[str, str]) -> None:
        """Undo what was changed about it, as was noted. Most kinds change nothing."""

    # Finding what runs.

    async def _resume(self, instance: Instance, launch: Launch | None) -> Adopted:
        """Find what runs, and watch it. Without a launch, what is on record is meant."""
        record = self._notes.read(instance)
        recorded = self._own(record.backend) if record is not None else None
        own = self._own_spec(launch) if launch is not None else None
        spec = own or recorded
        if spec is None:
            return Gone()
        if record is not None and recorded is not None and recorded != spec and record.exit is None:
            # The spec has changed since the start: what was started by the old one comes first.
            sight = await self._look(instance, recorded, record)
            if isinstance(sight, Up):
                return await self._take_over(instance, recorded, sight.handle, record, launch)
        sight = await self._look(instance, spec, record if spec == recorded else None)
        if isinstance(sight, Up):
            return await self._take_over(instance, spec, sight.handle, record, launch)
        if isinstance(sight, Unproven):
            return sight
        return self._note_gone(instance, record, sight)

    async def _take_over(
        self, instance: Instance, spec: S, handle: Handle, record: LaunchRecord | None, launch: Launch | None
    ) -> Running:
        if record is not None and (record.exit is None or launch is None):
            generation = record.generation
        else:
            generation = launch.generation if launch is not None else 0
            self._tell(instance, f"{handle.unit} ran already, and citadel had not started it: taken over as it is")
        self._notes.write_if_possible(instance, LaunchRecord(generation, spec, handle))
        timeout_seconds = launch.stop_timeout_seconds if launch is not None else 0.0
        run = Run(instance, generation, spec, handle, timeout_seconds)
        await self._watch(run)
        return Running(handle, generation)

    def _note_gone(self, instance: Instance, record: LaunchRecord | None, sight: Down) -> Gone:
        if record is None:
            return Gone()
        if record.exit is None:
            record = replace(record, exit=sight.exit or Exit.unknown("no agent saw its end"))
            self._notes.write_if_possible(instance, record)
        return Gone(record.generation, record.exit)

    # Starting, watching, ending.

    async def _launch(self, launch: Launch, spec: S) -> Run[S]:
        instance = launch.instance
        previous = self._notes.read(instance)
        self._notes.write(instance, LaunchRecord(launch.generation, spec))
        try:
            handle = await self._begin(launch, spec)
        except BackendError:  # nothing was started; after any other error something may run, and the intent stays
            if previous is None:
                self._notes.forget(instance)
            else:
                self._notes.write_if_possible(instance, previous)
            raise
        self._notes.write_if_possible(instance, LaunchRecord(launch.generation, spec, handle))
        run = Run(instance, launch.generation, spec, handle, launch.stop_timeout_seconds)
        await self._watch(run)
        return run

    async def _watch(self, run: Run[S]) -> None:
        self._runs[run.instance] = run
        await self._attend(run)

    def _note_exit(self, run: Run[S], known: Exit) -> None:
        """Take note that it ended, and report it, once."""
        if run.exited.is_set():
            return
        run.exit = known
        self._leave(run)
        del self._runs[run.instance]
        self._notes.write_if_possible(run.instance, LaunchRecord(run.generation, run.spec, run.handle, known))
        run.exited.set()
        if self._sink is not None:
            self._sink(InstanceExited(run.instance, run.generation, known, run.requested))

    async def _end(self, run: Run[S], timeout_seconds: float) -> None:
        if run.exited.is_set():
            return
        run.requested = True
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        run.deadline = deadline if run.deadline is None else min(run.deadline, deadline)
        try:
            async with asyncio.timeout_at(run.deadline):
                await self._ask_to_end(run)
                await run.exited.wait()
        except TimeoutError:
            run.deadline = None  # whoever tries again gets time again
            await self._force(run)
        except (BackendError, BackendUnavailable):
            run.deadline = None
            raise

    # What goes with it.

    def _in_background(self, task: asyncio.Task[Any]) -> None:
        """Have a task of :attr:`_tasks` cancelled when the context is left."""
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _tell(self, instance: Instance, message: str) -> None:
        if self._notice_sink is not None:
            self._notice_sink(Notice(instance, message))
        else:
            _log.warning("%s: %s", instance, message)

    def _own_spec(self, launch: Launch) -> S | None:
        return self._own(launch.backend)

    def _own(self, backend: model.Backend) -> S | None:
        return backend if isinstance(backend, self._spec_type) else None


@contextmanager
def _about(instance: Instance) -> Iterator[None]:
    """Have an error say which instance it is about."""
    prefix = f"{instance}: "
    try:
        yield
    except (BackendError, BackendUnavailable) as error:
        if str(error).startswith(prefix):
            raise
        raise type(error)(f"{prefix}{error}") from error
