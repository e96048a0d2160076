"""Commands: a program that is run for each notice.

It gets the notice as JSON on its standard input, and as few words in its environment. Exit status 0 means delivered;
anything else can succeed later. It is ended, with everything in its process group, when its time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import orjson

from citadel_consul.config.receivers import CommandReceiver
from citadel_consul.core.notice import Notice, Transition
from citadel_consul.errors import ReceiverRefused, ReceiverUnavailable
from citadel_consul.notification.document import document_of

EXCERPT_BYTES: Final = 300
"""How much of what a failed command said last is told."""
_CHUNK: Final = 4096
_PIPE_CHUNKS: Final = 17  # 64 KiB (pipe(7)), and the end
_SECRETS: Final = ("CONSUL_HTTP_TOKEN", "CONSUL_HTTP_AUTH")


class CommandChannel:
    """Runs one program for each notice."""

    def __init__(self, receiver: CommandReceiver) -> None:
        self._receiver = receiver

    @property
    def name(self) -> str:
        return self._receiver.name

    @property
    def when(self) -> frozenset[Transition]:
        return self._receiver.when

    async def deliver(self, notice: Notice) -> None:
        program = self._receiver.command[0]
        with _Errors() as errors:
            process = await self._start(notice, errors)
            try:
                async with asyncio.timeout(self._receiver.timeout_seconds):
                    status = await process.wait()
            except TimeoutError:
                raise ReceiverUnavailable(
                    f"{program} did not end within {self._receiver.timeout_seconds:g} s"
                ) from None
            finally:
                await _end(process)
            if status != 0:
                raise ReceiverUnavailable(f"{program} {_ending(status)}{errors.excerpt()}")

    async def aclose(self) -> None:
        """There is nothing to let go of: a command does not outlive its delivery."""

    async def _start(self, notice: Notice, errors: _Errors) -> asyncio.subprocess.Process:
        program = self._receiver.command[0]
        try:
            # A file and not a pipe: a command need not read, and there is nothing to wait for if it does not.
            with tempfile.TemporaryFile() as text:
                text.write(orjson.dumps(document_of(notice)))
                text.seek(0)
                return await asyncio.create_subprocess_exec(
                    *self._receiver.command,
                    stdin=text,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=errors.inlet,
                    env=_environment(notice),
                    start_new_session=True,
                )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise ReceiverRefused(f"{program} cannot be run: {error.strerror}") from None
        except OSError as error:
            raise ReceiverUnavailable(f"{program} cannot be run now: {error.strerror}") from None
        finally:
            errors.close_inlet()


class _Errors:
    """The end of what a command says on its standard error: bounded, and not waited for.

    A process that outlives the command can hold the pipe open for ever, so its end means nothing here.
    """

    def __init__(self) -> None:
        self._outlet, self.inlet = os.pipe()
        os.set_blocking(self._outlet, False)
        self._last = b""

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._outlet, self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._outlet)
        os.close(self._outlet)
        self.close_inlet()

    def close_inlet(self) -> None:
        """Leave the inlet to the command alone."""
        inlet, self.inlet = self.inlet, -1
        if inlet >= 0:
            os.close(inlet)

    def excerpt(self) -> str:
        """What it said last, as the end of a sentence."""
        self._read()
        text = " ".join(self._last.decode(errors="replace").split())
        return f": {text}" if text else ""

    def _read(self) -> None:
        # At most what a full pipe holds: who outlives the command may go on writing as fast as this reads.
        for _ in range(_PIPE_CHUNKS):
            try:
                chunk = os.read(self._outlet, _CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                asyncio.get_running_loop().remove_reader(self._outlet)
                return
            self._last = (self._last + chunk)[-EXCERPT_BYTES:]


def _environment(notice: Notice) -> Mapping[str, str]:
    """That of the orchestrator without its secrets, and what shell scripts want to know without reading JSON."""
    kept = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    return {
        **kept,
        "CITADEL_NOTICE_ID": notice.id,
        "CITADEL_NOTICE_TRANSITION": str(notice.transition),
        "CITADEL_NOTICE_SERVICE": notice.subject or "",
        "CITADEL_NOTICE_TITLE": notice.title.replace("\0", " "),
    }


async def _end(process: asyncio.subprocess.Process) -> None:
    """End what still runs of it. As long as it was not waited for, nobody else can have its number."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
    return f"exited with status {status}"
