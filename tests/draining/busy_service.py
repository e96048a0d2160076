"""A service with requests in hand: ``busy_service.py PORT LEDGER``.

``GET /health`` says how many those are (itself not counted), ``GET /held`` takes until somebody asks for ``/release``,
anything else takes a moment; each is answered with the process id. SIGTERM ends it at once, whatever is in hand: only a
drain keeps its clients from harm. It writes each of its lives into a ledger.
"""

import asyncio
import os
import signal
import sys
import time

MOMENT_SECONDS = 0.02


class Service:
    """What is in hand, and the answers."""

    def __init__(self) -> None:
        self.in_hand = 0
        self.released = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                lengths = [line for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
                body = await self.answer(head.split(b" ")[1].decode())
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answer(self, path: str) -> bytes:
        if path == "/health":
            return b'{"requests": {"active": %d}}' % self.in_hand
        if path == "/release":
            self.released.set()
        self.in_hand += 1
        try:
            await (self.released.wait() if path == "/held" else asyncio.sleep(MOMENT_SECONDS))
        finally:
            self.in_hand -= 1
        return str(os.getpid()).encode()


async def main() -> None:
    port, ledger = int(sys.argv[1]), sys.argv[2]
    line = f"{time.time()} {os.getpid()} {os.environ.get('CITADEL_GENERATION', '')}\n".encode()
    descriptor = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, line)
    os.close(descriptor)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server = await asyncio.start_server(Service().serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


asyncio.run(main())
