"""What the person in front of ``citadel dev`` wants: to stop in order, or to leave at once.

The first SIGINT, SIGTERM or SIGHUP asks for an ordered stop. A second SIGINT or SIGTERM cancels the running task, which
leaves the services as they are. More of them change nothing: what is left to do by then takes seconds at most.

A terminal that is closed sends SIGHUP. It means 'stop', because a platform of a dozen services that nobody sees any
more is a leak; who wants them to outlive the terminal says so with ``nohup`` (a signal that is ignored at the start
stays ignored) or kills ``citadel dev`` for good. It never means 'leave at once': the kernel can send it twice, and a
stop may be under way already, because the terminal could not be written to or because of a Ctrl-C before.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Listens to signals for the time of the block, in the task that entered it.

    ``on_hangup`` is called when the terminal is gone.
    """

    def __init__(self, on_hangup: Callable[[], None]) -> None:
        self._on_hangup = on_hangup
        self._asked = asyncio.Event()
        self._task: asyncio.Task[object] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heard: list[signal.Signals] = []
        self._works: set[asyncio.Timeout] = set()
        self.left_by: signal.Signals | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.add_signal_handler(number, self.take, number)
                self._heard.append(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            for number in self._heard:
                self._loop.remove_signal_handler(number)

    @property
    def asked(self) -> bool:
        """Whether to stop in order."""
        return self._asked.is_set()

    @property
    def leaving(self) -> bool:
        """Whether to leave at once, because of the signal ``left_by``."""
        return self.left_by is not None

    def take(self, number: signal.Signals) -> None:
        """Act on a signal."""
        first = not self.asked
        if number is signal.SIGHUP:
            self._on_hangup()
        if first:
            self.ask()
        elif number is not signal.SIGHUP and not self.leaving and self._task is not None:
            self.left_by = number
            self._task.cancel()

    def ask(self) -> None:
        """Ask for an ordered stop, as a first signal does."""
        self._asked.set()
        now = asyncio.get_running_loop().time()
        for work in self._works:
            work.reschedule(now)

    async def wait(self) -> None:
        """Until an ordered stop is asked for."""
        await self._asked.wait()

    async def unless_asked(self, work: Awaitable[T]) -> T | None:
        """The result of ``work``, or None if an ordered stop is asked for before it is there; it is cancelled then."""
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._works.add(scope)
                if self.asked:
                    scope.reschedule(asyncio.get_running_loop().time())
                return await work
        except TimeoutError:
            if not scope.expired():
                raise
            return None
        finally:
            self._works.discard(scope)
