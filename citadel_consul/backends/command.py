"""The command backend: anything that has commands to start, to stop and to look at it.

The commands name the service, so what the status command speaks of *is* the service (see :mod:`.external`). It answers
by its exit status: 0, it runs; 3, it does not (as ``systemctl is-active`` and LSB scripts have it). Anything else, or
no answer in time, means that one cannot tell now: that is said, nothing is started or stopped on account of it, and
nobody is told of an end. So an end is known only when the status command has said so, at the latest one poll after it
happened, and how it ended is not known at all.

A command that takes too long is killed with its process group. But the end of an agent kills no command: a database
whose start takes a minute is not to suffer from an upgrade of citadel. While a start command runs it is on record, and
the next call, or the next agent, waits for it instead of starting beside it.

There is no stronger way to stop than the stop command. If it fails, or the service runs on after it, the stop fails.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from citadel_consul.backends import errand, logs, procfs
from citadel_consul.backends.base import Exit, Handle, Launch
from citadel_consul.backends.errand import Errand
from citadel_consul.backends.external import Down, ExternalBackend, Run, Sight, Up
from citadel_consul.backends.launches import LaunchRecord
from citadel_consul.backends.refusals import translated
from citadel_consul.backends.spawn import Program, account_of, environment
from citadel_consul.core import model
from citadel_consul.core.model import Instance
from citadel_consul.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

RUNS = 0
RUNS_NOT = 3

SETTLE_SECONDS = 10.0
"""How long after the end of its start command a service may still not run: some write their pid file late."""

LEAST_STOP_SECONDS = 5.0
"""What a stop command gets even if no time is given, since nothing else ends the service."""

_FIRST_LOOK_SECONDS = 0.02

LOG_BYTES = 10 * 1024 * 1024
LOG_FILES = 3

_Run = Run[model.CommandBackend]
_Failure = BackendError | BackendUnavailable


@dataclass(frozen=True, slots=True)
class _Doubt:
    """The status command ran, and it cannot be told from its answer whether the service does."""

    reason: str


@dataclass(slots=True)
class _Stopping:
    """A stop under way: the task, and the stop command while it runs. The task ends with why it failed, if it did."""

    task: asyncio.Task[_Failure | None]
    command: Errand | None = None


class CommandBackend(ExternalBackend[model.CommandBackend]):
    """See :class:`citadel_consul.backends.base.Backend`. One object serves one stack on this machine."""

    def __init__(self, state_dir: Path, stack: str, *, least_stop_seconds: float = LEAST_STOP_SECONDS) -> None:
        super().__init__(state_dir, stack, model.CommandBackend, "command")
        self._state_dir = state_dir
        self._least_stop_seconds = least_stop_seconds
        self._starting: dict[Instance, asyncio.Task[_Failure | None]] = {}
        self._stopping: dict[_Run, _Stopping] = {}
        self._polling: dict[_Run, asyncio.Task[None]] = {}
        self._in_doubt: set[_Run] = set()
        self._unrotated: set[Instance] = set()

    # Looking.

    async def _look(self, instance: Instance, spec: model.CommandBackend, record: LaunchRecord | None) -> Sight:
        await self._wait_for_start_command(instance, spec, record)
        sight = await self._status(instance, spec, record.generation if record is not None else 0)
        if isinstance(sight, _Doubt):
            raise BackendUnavailable(f"{instance}: {sight.reason}")
        return sight

    async def _status(self, instance: Instance, spec: model.CommandBackend, generation: int) -> Up | Down | _Doubt:
        """What the status command says.

        Raises:
            BackendError: it cannot be executed.
            BackendUnavailable: it cannot be executed now.
        """
        program = self._program(instance, spec, generation, spec.status, "backend.status")
        ended, said = await errand.run(program, spec.timeout_seconds)
        if ended is not None and ended.code == RUNS:
            return Up(_handle(instance))
        if ended is not None and ended.code == RUNS_NOT:
            return Down()
        if ended is None:
            why = f"the command took longer than {spec.timeout_seconds:g} s"
        else:
            why = f"the command gave {ended.detail}, neither 0 (it runs) nor 3 (it does not)"
        why += f": {said}" if said else ""
        return _Doubt(f"backend.status: it cannot be told whether it runs: {why}")

    async def _wait_for_start_command(
        self, instance: Instance, spec: model.CommandBackend, record: LaunchRecord | None
    ) -> None:
        """Wait for a start command that is still at work: of a call that was cancelled, or of an earlier agent."""
        task = self._starting.get(instance)
        if task is not None:
            await asyncio.wait({task})
            return
        handle = record.handle if record is not None and record.exit is None else None
        if handle is None or handle.pid is None or handle.start_ticks is None or handle.boot_id != procfs.boot_id():
            return
        found = Errand.found((handle.pid, handle.start_ticks))
        if found is not None:
            with found:
                await found.end(spec.timeout_seconds)

    # Starting.

    async def _begin(self, launch: Launch, spec: model.CommandBackend) -> Handle:
        instance = launch.instance
        task = self._tasks.create_task(self._start(launch, spec))
        self._starting[instance] = task
        task.add_done_callback(lambda _: self._starting.pop(instance, None))
        self._in_background(task)
        await asyncio.wait({task})  # and does not pass a cancellation on
        failure = task.result()
        if failure is not None:
            raise failure
        return _handle(instance)

    async def _start(self, launch: Launch, spec: model.CommandBackend) -> _Failure | None:
        """Start it, and wait until its status says so. Errors are returned: raised, they would end all tasks."""
        instance = launch.instance
        try:
            program = self._program(instance, spec, launch.generation, spec.start, "backend.start")
            ended, said = await self._run(
                program, spec.timeout_seconds, lambda begun: self._record(launch, spec, begun)
            )
            if ended is None:
                return BackendError(
                    f"{instance}: backend.start: it took longer than {spec.timeout_seconds:g} s, and was killed: {said}"
                )
            if not ended.succeeded:
                return BackendError(f"{instance}: backend.start: it failed ({ended.detail}): {said}")
            return await self._await_up(launch, spec)
        except (BackendError, BackendUnavailable) as error:
            return error

    async def _await_up(self, launch: Launch, spec: model.CommandBackend) -> _Failure | None:
        instance, pause = launch.instance, _FIRST_LOOK_SECONDS
        seconds = min(SETTLE_SECONDS, spec.timeout_seconds)
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            sight = await self._status(instance, spec, launch.generation)
            if isinstance(sight, Up):
                return None
            if asyncio.get_running_loop().time() >= deadline:
                break
            await asyncio.sleep(pause)
            pause = min(2 * pause, spec.poll_seconds)
        if isinstance(sight, _Doubt):
            return BackendUnavailable(f"{instance}: {sight.reason}")
        return BackendError(f"{instance}: backend.start: it succeeded, and the service did not run {seconds:g} s later")

    # Watching.

    async def _attend(self, run: _Run) -> None:
        task = self._tasks.create_task(self._poll(run))
        self._polling[run] = task
        self._in_background(task)

    def _leave(self, run: _Run) -> None:
        self._in_doubt.discard(run)
        task = self._polling.pop(run, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _poll(self, run: _Run) -> None:
        while not run.exited.is_set():
            await asyncio.sleep(run.spec.poll_seconds)
            await self._tend_log(run.instance)
            try:
                sight = await self._status(run.instance, run.spec, run.generation)
            except (BackendError, BackendUnavailable) as error:
                sight = _Doubt(str(error).removeprefix(f"{run.instance}: "))
            self._take(run, sight)

    def _take(self, run: _Run, sight: Up | Down | _Doubt) -> None:
        """Draw the conclusion from a look at what is watched."""
        if isinstance(sight, Down):
            ended = Exit(None, None, "ended by its stop command")
            self._note_exit(run, ended if run.requested else Exit.unknown("its status command says that it ended"))
        elif isinstance(sight, _Doubt):
            if run not in self._in_doubt:
                self._in_doubt.add(run)
                self._tell(run.instance, sight.reason)
        else:
            self._in_doubt.discard(run)

    # Ending.

    async def _end(self, run: _Run, timeout_seconds: float) -> None:
        await super()._end(run, max(timeout_seconds, self._least_stop_seconds))

    async def _ask_to_end(self, run: _Run) -> None:
        stopping = self._stopping.get(run)
        if stopping is None:
            stopping = _Stopping(self._tasks.create_task(self._stop(run)))
            self._stopping[run] = stopping
            self._in_background(stopping.task)
        await asyncio.wait({stopping.task})  # which takes its cancellation for an end, and does not pass ours on
        if self._stopping.get(run) is stopping:
            del self._stopping[run]
        if stopping.task.cancelled():
            if run.exited.is_set():
                return
            raise BackendUnavailable(f"{run.instance}: backend.stop: a second stop gave it less time, in vain")
        failure = stopping.task.result()
        if failure is not None:
            raise failure

    async def _stop(self, run: _Run) -> _Failure | None:
        """Run the stop command, and wait until its status says that it has ended."""
        spec, instance = run.spec, run.instance
        try:
            program = self._program(instance, spec, run.generation, spec.stop, "backend.stop")
            ended, said = await self._run(program, None, lambda begun: self._note_stop_command(run, begun))
            self._note_stop_command(run, None)
            pause = _FIRST_LOOK_SECONDS
            while True:
                sight = await self._status(instance, spec, run.generation)
                self._take(run, sight)
                if run.exited.is_set():
                    return None
                if ended is None or not ended.succeeded:
                    detail = "killed" if ended is None else ended.detail
                    return BackendUnavailable(f"{instance}: backend.stop: it failed ({detail}): {said}")
                await asyncio.sleep(pause)
                pause = min(2 * pause, spec.poll_seconds)
        except (BackendError, BackendUnavailable) as error:
            return error

    async def _force(self, run: _Run) -> None:
        stopping = self._stopping.pop(run, None)
        hung = stopping is not None and stopping.command is not None
        if stopping is not None:
            if stopping.command is not None:
                stopping.command.kill()
            stopping.task.cancel()
            await asyncio.wait({stopping.task})
        self._take(run, await self._status(run.instance, run.spec, run.generation))
        if not run.exited.is_set():
            what = "the command hung, and was killed" if hung else "the command ended"
            raise BackendUnavailable(
                f"{run.instance}: backend.stop: {what}, and the service still runs: there is no stronger way, "
                f"so it has to be ended by hand"
            )

    async def _have_reload(self, run: _Run) -> None:
        instance, spec = run.instance, run.spec
        if spec.reload is None:
            raise BackendError(f"{instance}: backend.reload: not set, so it cannot be reloaded, only restarted")
        program = self._program(instance, spec, run.generation, spec.reload, "backend.reload")
        ended, said = await self._run(program, spec.timeout_seconds)
        if ended is None:
            raise BackendError(f"{instance}: backend.reload: it took longer than {spec.timeout_seconds:g} s: {said}")
        if not ended.succeeded:
            raise BackendError(f"{instance}: backend.reload: it failed ({ended.detail}): {said}")

    # Commands.

    def _program(
        self, instance: Instance, spec: model.CommandBackend, generation: int, words: tuple[str, ...], field: str
    ) -> Program:
        if not words or not words[0]:
            raise BackendError(f"{instance}: {field}: it is empty")
        account = account_of(instance, spec.user)
        env = environment(Launch(self._stack, instance, generation, spec, 0.0), spec.env, account)
        return Program(instance, words, env, spec.cwd or "/", account, field)

    async def _run(
        self, program: Program, timeout_seconds: float | None, on_begin: Callable[[Errand], None] | None = None
    ) -> tuple[Exit | None, str]:
        """Run a command with the log of the service as its output, since what it leaves behind writes there, too.

        Returns how it ended (``None``: it took too long, and was killed) and its last line. A cancellation leaves it.
        """
        path = logs.log_path(self._state_dir, self._stack, program.instance.node, program.instance.service)
        account = program.account
        try:
            log = logs.open_for_service(path, (account.uid, account.gid) if account else None)
            reading = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise translated(f"{program.instance}: cannot open its log {path}", error) from error
        try:
            begin = os.fstat(log).st_size
            with Errand.begin(program, log) as command:
                if on_begin is not None:
                    on_begin(command)
                ended = await command.end(timeout_seconds)
            return ended, errand.last_line(reading, begin)
        finally:
            os.close(reading)
            os.close(log)

    def _record(self, launch: Launch, spec: model.CommandBackend, command: Errand) -> None:
        """Have the next agent know that a start command is at work."""
        pid, ticks = command.identity
        handle = Handle("command", pid, ticks, procfs.boot_id(), launch.instance.service)
        self._notes.write_if_possible(launch.instance, LaunchRecord(launch.generation, spec, handle))

    def _note_stop_command(self, run: _Run, command: Errand | None) -> None:
        stopping = self._stopping.get(run)
        if stopping is not None:
            stopping.command = command

    async def _tend_log(self, instance: Instance) -> None:
        path = logs.log_path(self._state_dir, self._stack, instance.node, instance.service)
        try:
            if logs.has_outgrown(path, LOG_BYTES):
                # In a thread, because copying many megabytes would hold up the loop.
                await asyncio.to_thread(logs.rotate, path, LOG_BYTES, LOG_FILES)
        except OSError as error:
            if instance not in self._unrotated:  # said once, not at every poll
                self._unrotated.add(instance)
                _log.warning("%s: cannot rotate its log %s: %s", instance, path, error)


def _handle(instance: Instance) -> Handle:
    return Handle("command", unit=instance.service)
