"""A process that is a registered service: ``python registered_server.py CONSUL SERVICE PORT [MODE]``.

``async`` (the default) and ``sync`` serve by themselves inside of a ``Registration``; ``asgi`` is an application under
uvicorn with the lifespan hook. It answers each request with its process id, after a moment. ``INSTANCE_ID``,
``DRAIN_SECONDS`` and ``TTL_SECONDS`` are in its environment.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from citadel_consul.consul.address import parse_address
from citadel_consul.discovery import Registration

MOMENT_SECONDS = 0.005


def registration(consul: str, service: str, port: int) -> Registration:
    return Registration(
        service,
        port,
        address="127.0.0.1",
        consul=parse_address(consul),
        ttl_seconds=float(os.environ["TTL_SECONDS"]),
        drain_seconds=float(os.environ["DRAIN_SECONDS"]),
        node="test",
        instance_id=os.environ["INSTANCE_ID"],
    )


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = str(os.getpid()).encode()
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
            await asyncio.sleep(MOMENT_SECONDS)
            writer.write(answer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def run_async(consul: str, service: str, port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server, registration(consul, service, port):
        await server.serve_forever()


def run_sync(consul: str, service: str, port: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = str(os.getpid()).encode()
            time.sleep(MOMENT_SECONDS)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server, registration(consul, service, port):
        server.serve_forever()


def run_asgi(consul: str, service: str, port: int) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def answer(_: Request) -> PlainTextResponse:
        await asyncio.sleep(MOMENT_SECONDS)
        return PlainTextResponse(str(os.getpid()))

    routes = [Route("/", answer, methods=["GET", "POST"])]
    app = Starlette(routes=routes, lifespan=registration(consul, service, port).lifespan)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def main() -> None:
    consul, service, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    mode = sys.argv[4] if len(sys.argv) > 4 else "async"
    if mode == "async":
        asyncio.run(run_async(consul, service, port))
    elif mode == "sync":
        run_sync(consul, service, port)
    else:
        run_asgi(consul, service, port)


if __name__ == "__main__":
    main()
