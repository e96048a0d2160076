"""The docker backend: containers by name, and services of compose files.

A container belongs to its machine and is known by its name, whoever made or started it (see :mod:`..external`). Its id
together with the time of its start tells one run from the next.

* **Who restarts.** The engine has restart policies of its own. Two that restart are one too many: the engine would
  start a service whose dependencies are down, and at boot everything at once. So a policy other than ``no`` is
  switched off when citadel takes a container in hand, that is said, and :meth:`DockerBackend.give_back` puts it back.
* **What compose changes.** A compose service's container is made by compose (:mod:`.compose`) when there is none, and
  made anew before a start if its image, or the compose file, is newer than it. Compose decides whether that makes a
  difference. A container that was named by ``backend.container`` is never made.
* **What runs twice.** If several containers of one compose service run (somebody scaled it up), it cannot be told which
  is meant, and none is touched.

How ends are noticed is told in :mod:`.following`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from citadel_consul.backends.base import Exit, Handle, Launch, Unproven
from citadel_consul.backends.docker import compose
from citadel_consul.backends.docker.compose import Compose
from citadel_consul.backends.docker.container import Container, exit_of, id_of
from citadel_consul.backends.docker.engine import Engine, EngineRefusedError, Event
from citadel_consul.backends.docker.following import QUIET_SECONDS, Following
from citadel_consul.backends.external import Down, ExternalBackend, Run, Sight, Up
from citadel_consul.backends.launches import LaunchRecord
from citadel_consul.backends.spawn import signal_named
from citadel_consul.core import model
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

KILL_SECONDS = 15.0
"""How long the engine may take to tell of the end of a container that it was told to kill."""

_Run = Run[model.DockerBackend]


class DockerBackend(ExternalBackend[model.DockerBackend]):
    """See :class:`citadel_consul.backends.base.Backend`. One object serves one stack on this machine."""

    def __init__(self, state_dir: Path, stack: str, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        super().__init__(state_dir, stack, model.DockerBackend, "docker")
        self._engine = Engine()
        self._compose = Compose()
        self._following = Following(self._engine, quiet_seconds, self._look_at_all, self._take)
        self._signalled: set[_Run] = set()
        self._ailing: set[_Run] = set()
        self._unchanged: dict[str, float] = {}
        # What was seen a moment ago, so that the engine is asked once: each question is a part of a recovery. ``_news``
        # counts what could have been told of it since: ends, and beginnings of a stream, before which some are missed.
        self._found: dict[Instance, list[Container]] = {}
        self._seen: dict[Instance, tuple[int, Container]] = {}
        self._news = 0

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._in_background(self._tasks.create_task(self._following.run()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            await self._engine.aclose()

    # Looking.

    async def _look(self, instance: Instance, spec: model.DockerBackend, record: LaunchRecord | None) -> Sight:
        news = self._news
        with _naming(instance, spec):
            found = self._found[instance] = await self._containers(spec)
            running = [container for container in found if container.running]
            if len(running) > 1:
                names = ", ".join(container.name for container in running)
                return Unproven(
                    f"{len(running)} containers of compose service {spec.service!r} run ({names}), and citadel cannot "
                    f"tell which is meant; they are left alone: remove all but one, then try again"
                )
            if running and not running[0].restarting:
                await self._become_the_only_one(instance, running[0])
                self._seen[instance] = news, running[0]
                return Up(running[0].handle)
            for container in running:  # it has ended, and the engine is about to start it again
                await self._become_the_only_one(instance, container)
                await self._engine.stop(container.id, 0)
            return Down(_recorded_exit(found, record))

    async def _containers(self, spec: model.DockerBackend) -> list[Container]:
        if spec.container is not None:
            names = [spec.container]
        else:
            names = await self._engine.of_service(_project(spec), spec.service or "")
        return [container for name in names if (container := await self._engine.inspect(name)) is not None]

    async def _become_the_only_one(self, instance: Instance, container: Container) -> None:
        """See to it that the engine does not restart what citadel restarts."""
        policy = container.restart_policy
        if policy == "no":
            return
        await self._switch_off(container)
        attempts = str(container.restart_attempts)
        self._notes.note(instance, {"container": container.id, "restart": policy, "attempts": attempts})
        self._tell(
            instance,
            f"container {container.name} had the restart policy {policy!r}, and citadel restarts it: switched off "
            f"(docker update --restart={policy} {container.name} puts it back, and so does citadel handback)",
        )

    async def _switch_off(self, container: Container) -> None:
        """Set the restart policy to ``no``, which an engine refuses while the container is just ending."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(EngineRefusedError),
            wait=wait_exponential(multiplier=0.05, max=1.0),
            stop=stop_after_attempt(6),
            reraise=True,
        ):
            with attempt:
                await self._engine.set_restart_policy(container.id, "no")

    async def _put_back(self, instance: Instance, noted: Mapping[str, str]) -> None:
        container = await self._engine.inspect(noted["container"]) if "container" in noted else None
        if container is None:  # nothing was changed, or compose has made another one since
            return
        try:
            await self._engine.set_restart_policy(container.id, noted["restart"], int(noted["attempts"]))
        except EngineRefusedError as refusal:
            raise BackendError(f"{instance}: its restart policy cannot be put back: {refusal}") from refusal

    # Starting.

    async def _begin(self, launch: Launch, spec: model.DockerBackend) -> Handle:
        instance = launch.instance
        with _naming(instance, spec):
            container = await self._prepared(instance, spec)
            await self._become_the_only_one(instance, container)
            news = self._news
            await self._engine.start(container.id)
            started = await self._engine.inspect(container.id)
        if started is None:  # one that removes itself at its end can be gone by now
            return container.handle
        self._seen[instance] = news, started
        return started.handle

    async def _prepared(self, instance: Instance, spec: model.DockerBackend) -> Container:
        """The container that is to be started."""
        found = self._found.pop(instance, [])
        if spec.container is not None:
            if not found:
                raise BackendError(
                    f"{instance}: backend.container: there is no container {spec.container!r}: make it first "
                    f"(docker create --name {spec.container} …), or name a compose file and service instead"
                )
            return found[0]
        if not found or await self._may_be_outdated(spec, found[0]):
            file = _file(spec)
            written = compose.changed_at(file)
            await self._compose.make(instance, file, _project(spec), spec.service or "")
            found = await self._containers(spec)
            if not found:
                raise BackendError(
                    f"{instance}: backend.service: compose made no container of {spec.service!r} of {file}"
                )
            self._unchanged[found[0].id] = written
        return found[0]

    async def _may_be_outdated(self, spec: model.DockerBackend, container: Container) -> bool:
        """Whether compose has to be asked if this is still the right container. That takes it half a second."""
        image = await self._engine.image_id(container.image_name)
        if image is not None and image != container.image:
            return True
        known = self._unchanged.get(container.id, datetime.fromisoformat(container.created).timestamp())
        return compose.changed_at(_file(spec)) > known

    # Watching.

    async def _attend(self, run: _Run) -> None:
        news, container = self._seen.pop(run.instance, (0, None))
        if container is not None and news == self._news:  # nothing was told since, and from now on it is heard
            self._conclude(run, container)
            return
        try:
            await self._look_at(run)
        except (BackendError, BackendUnavailable) as error:
            _log.warning("%s: its container is looked at again when the engine answers: %s", run.instance, error)

    def _leave(self, run: _Run) -> None:
        self._signalled.discard(run)
        self._ailing.discard(run)

    async def _look_at_all(self) -> None:
        self._news += 1
        for run in list(self._runs.values()):
            await self._look_at(run)

    async def _take(self, event: Event) -> None:
        self._news += event.action == "die"
        for run in list(self._runs.values()):
            if id_of(run.handle) == event.container:
                await self._look_at(run, event.exit_code)

    async def _look_at(self, run: _Run, code: int | None = None) -> None:
        """Find out whether a run has ended. ``code`` is the exit code that an event told of its container.

        The event itself decides nothing: it can be one of an earlier run, and the container can run again by now.
        """
        with _naming(run.instance, run.spec):
            container = await self._engine.inspect(id_of(run.handle))
            if container is not None and container.restarting:  # as its policy was a moment ago
                await self._engine.stop(container.id, 0)
        self._conclude(run, container, code)

    def _conclude(self, run: _Run, container: Container | None, code: int | None = None) -> None:
        told = None if code is None else exit_of(code)
        if container is None:
            self._note_exit(run, told or Exit.unknown("its container was removed"))
        elif container.invocation != run.handle.invocation:
            self._note_exit(run, told or Exit.unknown("somebody else has restarted its container"))
        elif not container.running or container.restarting:
            self._note_exit(run, container.exit)
        else:
            self._look_at_health(run, container)

    def _look_at_health(self, run: _Run, container: Container) -> None:
        if container.health == "unhealthy" and run not in self._ailing:
            self._ailing.add(run)
            self._tell(
                run.instance, f"its container's own health check fails: {container.health_output or 'no output'}"
            )
        elif container.health == "healthy" and run in self._ailing:
            self._ailing.discard(run)
            self._tell(run.instance, "its container's own health check passes again")

    # Ending.

    async def _ask_to_end(self, run: _Run) -> None:
        if run in self._signalled:  # some programs take a second signal for impatience
            return
        with _naming(run.instance, run.spec):
            container = await self._engine.inspect(id_of(run.handle))
            signalled = container is not None and await self._engine.signal(container.id, container.stop_signal)
            if signalled:
                self._signalled.add(run)
            if signalled and container is not None and container.paused:  # frozen, it takes no signal
                await self._engine.thaw(container.id)
        if not signalled:
            await self._look_at(run)

    async def _force(self, run: _Run) -> None:
        with _naming(run.instance, run.spec):
            await self._engine.signal(id_of(run.handle), "SIGKILL")
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await run.exited.wait()
        except TimeoutError:
            await self._look_at(run)
        if not run.exited.is_set():
            raise BackendUnavailable(
                f"{run.instance}: container {run.handle.unit} still runs {KILL_SECONDS:g} s after SIGKILL: "
                f"it is stuck in the kernel, or the engine is"
            )

    async def _have_reload(self, run: _Run) -> None:
        name = run.spec.reload_signal
        if name is None:
            raise BackendError(
                f"{run.instance}: backend.reload_signal: not set, so it cannot be reloaded, only restarted"
            )
        with _naming(run.instance, run.spec):
            await self._engine.signal(id_of(run.handle), signal_named(run.instance, "reload_signal", name).name)


def _recorded_exit(found: list[Container], record: LaunchRecord | None) -> Exit | None:
    """How the run on record ended, if one of these is its container and has not run again since."""
    if record is None or record.handle is None:
        return None
    return next((one.exit for one in found if one.invocation == record.handle.invocation), None)


def _file(spec: model.DockerBackend) -> Path:
    return Path(spec.file or "")


def _project(spec: model.DockerBackend) -> str:
    return compose.project_of(_file(spec), spec.project)


@contextmanager
def _naming(instance: Instance, spec: model.DockerBackend) -> Iterator[None]:
    """Say what an error of the engine is about."""
    try:
        yield
    except EngineRefusedError as refusal:
        field = "backend.container" if spec.container is not None else "backend.service"
        raise BackendError(f"{instance}: {field}: the Docker engine says: {refusal}") from refusal
