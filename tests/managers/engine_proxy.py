"""A proxy before the socket of a Docker engine: it can be closed, and it can swallow what the engine says of events."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Self


class EngineProxy:
    """Passes everything on while it is open. A ``deaf`` one keeps streams of events open and passes nothing of them."""

    def __init__(self, target: str, path: Path, *, deaf: bool = False) -> None:
        self.host = f"unix://{path}"
        self._target = target
        self._path = path
        self._deaf = deaf
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def close(self) -> None:
        """Refuse connections, and break off those that stand."""
        self._server.close()
        self._path.unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        swallowing = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, swallowing, asking=True))
                group.create_task(self._pump(far_reader, writer, swallowing, asking=False))
        except asyncio.CancelledError:  # by close alone; the server would log it
            return
        finally:
            for end in (writer, far_writer):
                end.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, swallowing: asyncio.Event, *, asking: bool
    ) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                if asking and self._deaf and b"/events?" in data:
                    swallowing.set()
                elif not asking and swallowing.is_set() and not data.startswith(b"HTTP/"):
                    continue  # the headers of the answer come through
                sink.write(data)
                await sink.drain()
        with suppress(OSError):
            sink.write_eof()
