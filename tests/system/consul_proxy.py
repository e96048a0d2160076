"""A proxy before Consul that can fail in all the ways in which a network can.

It understands just enough HTTP to see where a request begins, so that a test can do something exactly before the nth
write reaches Consul, or after it took effect and before its answer comes back, or keep that write for as long as it
likes and then let it through. It can be slow, and it can go silent (connections stay open and nothing comes through),
as a cut-off or half-open network does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

WRITE = b"PUT /v1/txn"


@dataclass
class Trap:
    """Call ``spring`` at the ``nth`` write (from 1): ``before`` it reaches Consul, or after it took effect."""

    nth: int
    before: bool
    spring: Callable[[], None]
    sprung: bool = False


class Hold:
    """Keeps the ``nth`` write (from 1) before it reaches Consul, until it is let go; then tells what Consul answered.

    ``on_caught`` is called at the moment at which the write is kept.
    """

    def __init__(self, nth: int, on_caught: Callable[[], None] = lambda: None) -> None:
        self.nth = nth
        self.on_caught = on_caught
        self.caught = threading.Event()
        self.status: int | None = None
        self.body = b""
        self._answered = threading.Event()
        self._gate = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def let_go(self, within: float = 20.0) -> int:
        """Let the write that was caught through; returns the status of Consul's answer."""
        self.release()
        if not self._answered.wait(within) or self.status is None:
            raise TimeoutError("the write that was held has not been answered")
        return self.status

    def release(self) -> None:
        """Let the write through, if one was caught, and do not wait for its answer."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._gate.set)

    async def keep(self, body: bytes) -> None:
        self.body = body
        self._loop = asyncio.get_running_loop()
        self.caught.set()
        self.on_caught()
        await self._gate.wait()

    def answer(self, data: bytes) -> None:
        self.status = int(data.split(b" ", 2)[1])
        self._answered.set()


@dataclass(eq=False)
class Link:
    """One connection through the proxy. ``write`` is the number of the write on it whose answer is waited for."""

    write: int = 0
    held: Hold | None = None
    frozen: bool = False
    head: bytes = b""


class ConsulProxy:
    """Listens on a free port of loopback and forwards to ``upstream`` (``host:port``), in a thread of its own."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: set[Link] = set()
        self._open = asyncio.Event()
        self._withheld = b""
        self._complete = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.address = ""
        self.delay_seconds = 0.0
        self.writes = 0
        self.connections = 0
        self.open_connections = 0
        self.trap: Trap | None = None
        self.hold: Hold | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def silence(self) -> None:
        """Let nothing through any more; connections stay open."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def speak(self) -> None:
        """Let everything through again, what was held up included."""
        self._loop.call_soon_threadsafe(self._open.set)

    def freeze(self) -> None:
        """Let nothing through any more on the connections that are open now; new ones work: they are half-open."""
        self._loop.call_soon_threadsafe(self._freeze)

    def withhold(self, path: str) -> None:
        """Let no answer to a request through whose first line has ``path`` in it; empty ends that."""
        self._loop.call_soon_threadsafe(self._withhold, path.encode())

    def disarm(self) -> bool:
        """Take the trap away; returns whether it has sprung, which it cannot any more afterwards."""
        return asyncio.run_coroutine_threadsafe(self._disarm(), self._loop).result(10)

    def cut(self) -> None:
        """Break every connection that is open now."""
        self._call(self._cut())

    def _call(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)  # type: ignore[arg-type]

    async def _start(self) -> None:
        self._open.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()

    async def _disarm(self) -> bool:
        trap, self.trap = self.trap, None
        return trap is not None and trap.sprung

    def _freeze(self) -> None:
        for link in self._links:
            link.frozen = True

    def _withhold(self, path: bytes) -> None:
        self._withheld = path
        if path:
            self._complete.clear()
        else:
            self._complete.set()

    async def _cut(self) -> None:
        doomed = list(self._tasks)
        for task in doomed:
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()  # by _cut alone; this is the outermost frame, and asyncio would log it
        finally:
            self.open_connections -= 1
            if task is not None:
                self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.close()
            return
        link = Link()
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as group:
                back = group.create_task(self._pump_back(far_reader, writer, link))
                await self._pump_requests(reader, far_writer, link)
                back.cancel()
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._links.discard(link)
            for end in (writer, far_writer):
                with contextlib.suppress(OSError):
                    end.close()

    async def _pump_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link) -> None:
        """Forward whole requests, one by one."""
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_length(head))
            link.head = head
            await self._passage(link)
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            is_write = head.startswith(WRITE)
            if is_write:
                self.writes += 1
                link.write = self.writes
                self._spring(link, before=True)
                await self._keep(body, link)
            writer.write(head + body)
            await writer.drain()

    async def _passage(self, link: Link) -> None:
        """Return when something may pass on this connection: never, if it is frozen."""
        if link.frozen:
            await asyncio.Event().wait()
        if self._withheld and self._withheld in link.head.partition(b"\r\n")[0]:
            await self._complete.wait()
        await self._open.wait()

    async def _keep(self, body: bytes, link: Link) -> None:
        hold = self.hold
        if hold is not None and not hold.caught.is_set() and self.writes >= hold.nth:
            link.held = hold
            await hold.keep(body)

    async def _pump_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link) -> None:
        while data := await reader.read(65536):
            if link.held is not None:
                link.held.answer(data)
                link.held = None
            await self._passage(link)
            self._spring(link, before=False)
            link.write = 0
            writer.write(data)
            await writer.drain()
        writer.close()

    def _spring(self, link: Link, *, before: bool) -> None:
        trap = self.trap
        if trap is not None and not trap.sprung and trap.before is before and link.write >= trap.nth:
            trap.sprung = True
            trap.spring()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0
