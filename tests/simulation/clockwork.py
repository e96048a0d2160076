"""An event loop without real time, in which everything that happens follows from a seed.

Time stands still while anything is ready to run, and jumps to the next timer when nothing is. What runs belongs to a
:class:`Process`, told by a context variable that tasks hand down to the tasks they make. So a process can be paused
(what it would run is kept until it is resumed; timers go on counting, as a monotonic clock does over SIGSTOP) and
killed (what it would run never does, clean-up included, as SIGKILL does).

Nothing of the operating system can be reached from here: no sockets, threads or child processes. What connects, does
so through :attr:`SimulatedLoop.network`.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import heapq
import itertools
from asyncio.events import Handle, TimerHandle
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("simulated process", default=None)
EPOCH = 1_750_000_000.0
"""Unix seconds at the loop's zero."""


class StuckError(Exception):
    """Nothing is ready, no timer runs, and the simulation has not ended."""


class Process:
    """A process of the simulated world: what runs in its name, and whether it can run."""

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.alive = True
        self.paused = False
        self.steps = 0
        self.paused_seconds = 0.0
        self.backlog: collections.deque[Handle] = collections.deque()
        self.tasks: list[asyncio.Task[Any]] = []
        self.on_death: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return self.name


class Network(Protocol):
    """Who listens where. ``connect`` returns what stands for a connection, or raises as connecting does."""

    async def connect(
        self, loop: SimulatedLoop, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]: ...


class _NoSelector:
    """Stands where the loop keeps its selector, so that a use of real files is an error with a name."""

    def __getattr__(self, name: str) -> Any:
        raise StuckError(f"the simulated loop has no files to select from ({name})")


class _Task(asyncio.Task[Any]):
    """A task whose place in a set follows from the order of creation, and not from where it lies in memory."""

    def __init__(self, work: Any, *, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(work, **options)

    def __hash__(self) -> int:
        return self._number


class _Future(asyncio.Future[Any]):
    """The same for a future."""

    def __init__(self, *, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module. ``before_step`` is called before each callback with the process that it belongs to.

    ``clock_offsets`` says by how many seconds the wall clock of a host is wrong; monotonic clocks are right.

    Groups of tasks and waits keep sets, and cancel and wake in the order of those: it has to be the same each time.
    """

    def __init__(self, start: float = 1000.0) -> None:
        super().__init__()
        self._selector = _NoSelector()
        self._now = start
        self._timers: list[tuple[float, int, TimerHandle]] = []
        self.network: Network | None = None
        self.before_step: Callable[[Process], None] | None = None
        self.clock_offsets: dict[str, float] = {}
        self.steps = 0
        self._numbers = itertools.count()
        self.set_task_factory(self._number_task)

    def _number_task(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        return _Task(work, number=next(self._numbers), loop=loop, **options)

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(number=next(self._numbers), loop=self)

    def time(self) -> float:
        return self._now

    def wall(self) -> float:
        """Unix seconds, by the clock of the host whose process asks."""
        process = PROCESS.get()
        return self.wall_of(process.host) if process is not None else EPOCH + self._now

    def wall_of(self, host: str) -> float:
        """Unix seconds, by the clock of ``host``."""
        return EPOCH + self._now + self.clock_offsets.get(host, 0.0)

    def call_at(  # type: ignore[override]  # its type has a variadic generic, which Any stands for here
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> TimerHandle:
        """Timers lie in tuples, which compare ten times as fast as handles do; the number keeps them in order."""
        timer = TimerHandle(when, callback, args, self, context)
        timer._scheduled = True  # type: ignore[attr-defined]
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    # --- what asyncio's base class asks of a loop ------------------------------------------------------------------

    def _process_events(self, event_list: list[Any]) -> None:  # noqa: ARG002  # the base class's name
        raise StuckError("there are no events to process")

    def _write_to_self(self) -> None:
        """Nobody has to be woken: there is one thread."""

    def run_in_executor(self, executor: Any, func: Any, *_: Any) -> Any:  # type: ignore[override]  # noqa: ARG002
        raise StuckError(f"a simulation has no threads: {func}")

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        if self.network is None:
            raise ConnectionRefusedError(f"{host}:{port}")
        return await self.network.connect(self, protocol_factory, host, port)

    def _run_once(self) -> None:
        timers, ready = self._timers, self._ready  # type: ignore[attr-defined]
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not ready:
            if not timers:
                raise StuckError("nothing will ever happen again")
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            timer = heapq.heappop(timers)[2]
            if not timer._cancelled:
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                self._run_handle(handle)

    def _timer_handle_cancelled(self, handle: Any) -> None:
        """Cancelled timers are dropped when their time comes."""

    # --- processes -------------------------------------------------------------------------------------------------

    def _run_handle(self, handle: Handle) -> None:
        process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
        if process is None:
            handle._run()
            return
        if process.paused or not process.alive:
            process.backlog.append(handle)
            return
        self.steps += 1
        process.steps += 1
        if self.before_step is not None:
            self.before_step(process)
            if not process.alive or process.paused:
                self._run_handle(handle)
                return
        handle._run()

    def spawn(self, process: Process, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work`` as (a part of) ``process``."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        task = self.create_task(work, name=process.name, context=context)
        process.tasks.append(task)
        return task

    def pause(self, process: Process, seconds: float) -> None:
        """SIGSTOP now, and SIGCONT after ``seconds``."""
        if not process.alive or process.paused:
            return
        process.paused = True
        process.paused_seconds += seconds
        self.call_later(seconds, self.resume, process, context=contextvars.Context())

    def resume(self, process: Process) -> None:
        """SIGCONT: what has gathered runs, in the order in which it became due."""
        if process.alive and process.paused:
            process.paused = False
            self._ready.extend(process.backlog)  # type: ignore[attr-defined]
            process.backlog.clear()

    def bury(self, process: Process) -> None:
        """Let what is left of a process run, when the simulation is over, so that it can be cancelled in order."""
        process.alive, process.paused = True, False
        self._ready.extend(process.backlog)  # type: ignore[attr-defined]
        process.backlog.clear()

    def kill(self, process: Process) -> None:
        """SIGKILL: nothing of it runs any more. Its connections end, as the kernel has it."""
        if process.alive:
            process.alive = process.paused = False
            for tell in process.on_death:
                tell()
