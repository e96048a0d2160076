"""One backend for all kinds: hands each instance to the backend of its spec's kind.

The backend of a kind is made when something of that kind is first asked for, so that a node without Docker needs no
Docker. It is entered in a task of its own: that its service manager is absent is told to whoever asks for something of
that kind and to nobody else, and it is made anew at the next call.

A spec can change its kind while what it said before still runs. What runs is known by what each kind has on record, so
an instance is stopped by whoever started it, and nothing is started beside it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from citadel_consul.backends.base import (
    Adopted,
    Backend,
    Exit,
    ExitSink,
    Gone,
    Handle,
    Launch,
    NoticeSink,
    Running,
    Unproven,
)
from citadel_consul.backends.kinds import MAKERS, Maker
from citadel_consul.backends.launches import Launches
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError, BackendUnavailable, CitadelError

_log = logging.getLogger(__name__)

_ALWAYS = "process"
"""The kind that needs nobody but the kernel. It is asked about every instance; the others only with good reason."""


@dataclass(slots=True, eq=False)
class _Hosted:
    """The backend of a kind in a task of its own. ``ready`` is done when it is entered, or could not be."""

    ready: asyncio.Future[Backend]
    closing: asyncio.Event = field(default_factory=asyncio.Event)


class RoutingBackend:
    """See :class:`citadel_consul.backends.base.Backend`. One object serves one stack on this machine."""

    def __init__(self, state_dir: Path, stack: str, makers: Mapping[str, Maker] = MAKERS) -> None:
        self._state_dir = state_dir
        self._stack = stack
        self._makers = makers
        self._launches = {kind: Launches(state_dir, stack, kind) for kind in makers if kind != _ALWAYS}
        self._hosted: dict[str, _Hosted] = {}
        self._runs_as: dict[Instance, str] = {}
        self._exit_sink: ExitSink | None = None
        self._notice_sink: NoticeSink | None = None
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hosted in self._hosted.values():
            hosted.closing.set()
        # A group of tasks needs to see a cancellation (it may be its own); other errors it would wrap.
        cancelled = isinstance(error, asyncio.CancelledError)
        await self._tasks.__aexit__(*((kind, error, trace) if cancelled else (None, None, None)))

    def set_exit_sink(self, sink: ExitSink) -> None:
        """See :meth:`Backend.set_exit_sink`."""
        self._exit_sink = sink
        for backend in self._entered():
            backend.set_exit_sink(sink)

    def set_notice_sink(self, sink: NoticeSink) -> None:
        """See :meth:`Backend.set_notice_sink`."""
        self._notice_sink = sink
        for backend in self._entered():
            backend.set_notice_sink(sink)

    async def start(self, launch: Launch) -> Handle:
        """See :meth:`Backend.start`."""
        instance, kind = launch.instance, launch.backend.kind
        for other in self._traces(instance, besides=kind):
            found = await (await self._backend(instance, other)).adopt(launch)
            if isinstance(found, Unproven):
                raise BackendError(f"{instance}: {found.reason}")
            if isinstance(found, Running):
                self._runs_as[instance] = other
                if found.generation == launch.generation:
                    return found.handle
                raise BackendError(
                    f"{instance}: generation {found.generation} still runs ({other}): "
                    f"it has to be stopped before generation {launch.generation} can start"
                )
        handle = await (await self._backend(instance, kind)).start(launch)
        self._runs_as[instance] = kind
        return handle

    async def adopt(self, launch: Launch) -> Adopted:
        """See :meth:`Backend.adopt`. What an earlier spec of another kind has left comes first."""
        instance, kind = launch.instance, launch.backend.kind
        last = Gone()
        for asked in (*self._traces(instance, besides=kind), kind):
            found = await (await self._backend(instance, asked)).adopt(launch)
            if not isinstance(found, Gone):
                self._runs_as[instance] = asked
                return found
            last = max(last, found, key=lambda gone: -1 if gone.generation is None else gone.generation)
        return last

    async def survivors(self) -> tuple[Instance, ...]:
        """See :meth:`Backend.survivors`."""
        found: set[Instance] = set()
        for kind in self._makers:
            on_record = self._on_record(kind)
            if kind != _ALWAYS and not on_record:
                continue
            try:
                found |= set(await (await self._backend(None, kind)).survivors())
            except BackendUnavailable as error:
                _log.warning("cannot tell which %s services survived; all on record may have: %s", kind, error)
                found |= set(on_record)
        return tuple(sorted(found))

    async def stop(self, instance: Instance, timeout_seconds: float) -> Exit | None:
        """See :meth:`Backend.stop`. Whoever may have started it is asked, whatever the spec says by now."""
        ended: Exit | None = None
        failure: CitadelError | None = None
        for kind in self._traces(instance):
            try:
                outcome = await (await self._backend(instance, kind)).stop(instance, timeout_seconds)
            except (BackendError, BackendUnavailable) as error:
                failure = failure or error
            else:
                ended = outcome if outcome is not None else ended
        if failure is not None:
            raise failure
        self._runs_as.pop(instance, None)
        return ended

    async def give_back(self, instance: Instance) -> None:
        """See :meth:`Backend.give_back`. Whoever may have it in hand is asked."""
        for kind in self._traces(instance):
            await (await self._backend(instance, kind)).give_back(instance)
        self._runs_as.pop(instance, None)

    def forget(self, instance: Instance) -> None:
        """See :meth:`Backend.forget`. A record of a kind whose backend is not there is removed without it."""
        for kind, launches in self._launches.items():
            if kind not in self._hosted:
                launches.forget_ended(instance)
        for backend in self._entered():
            backend.forget(instance)

    async def reload(self, instance: Instance) -> None:
        """See :meth:`Backend.reload`."""
        kind = self._runs_as.get(instance) or next(iter(self._traces(instance, besides=_ALWAYS)), _ALWAYS)
        await (await self._backend(instance, kind)).reload(instance)

    # Which kinds.

    def _traces(self, instance: Instance, besides: str | None = None) -> tuple[str, ...]:
        """The kinds that may have something of this instance running, the process backend among them."""
        found = [
            kind
            for kind in self._makers
            if kind == _ALWAYS or self._runs_as.get(instance) == kind or self._launches[kind].may_run(instance)
        ]
        return tuple(kind for kind in found if kind != besides)

    def _on_record(self, kind: str) -> list[Instance]:
        """What may run of a kind, by its records."""
        launches = self._launches.get(kind)
        return [] if launches is None else [i for i in launches.instances() if launches.may_run(i)]

    # Hosting.

    def _entered(self) -> list[Backend]:
        return [hosted.ready.result() for hosted in self._hosted.values() if _is_entered(hosted)]

    async def _backend(self, instance: Instance | None, kind: str) -> Backend:
        """The backend of a kind, entered. Raises what its entering raised."""
        maker = self._makers.get(kind)
        if maker is None:
            known = ", ".join(self._makers)
            place = f"{instance}: backend.kind" if instance is not None else "backend.kind"
            raise BackendError(f"{place}: this citadel runs no {kind!r}, only {known}")
        hosted = self._hosted.get(kind)
        if hosted is None or (hosted.ready.done() and not _is_entered(hosted)):
            hosted = _Hosted(asyncio.get_running_loop().create_future())
            self._hosted[kind] = hosted
            self._tasks.create_task(self._host(maker, hosted))
        return await asyncio.shield(hosted.ready)

    async def _host(self, maker: Maker, hosted: _Hosted) -> None:
        """Keep a backend entered until the end. What its entering raises is for those who asked for it."""
        try:
            async with maker(self._state_dir, self._stack) as backend:
                if self._exit_sink is not None:
                    backend.set_exit_sink(self._exit_sink)
                if self._notice_sink is not None:
                    backend.set_notice_sink(self._notice_sink)
                hosted.ready.set_result(backend)
                await hosted.closing.wait()
        except CitadelError as error:
            if hosted.ready.done():
                raise
            hosted.ready.set_exception(error)
            hosted.ready.exception()  # seen, even if nobody waits any longer
        finally:
            hosted.ready.cancel()  # without effect if it is done


def _is_entered(hosted: _Hosted) -> bool:
    ready = hosted.ready
    return ready.done() and not ready.cancelled() and ready.exception() is None
