"""Serving an ASGI application inside the event loop of an orchestrator.

The socket is bound before anything else happens: the orchestrator's address is part of what it says of itself, and a
port that was free to take proves that whoever had it before is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from citadel_consul.errors import InvalidInput

GOODBYE_SECONDS = 3


class _Server(uvicorn.Server):
    """uvicorn without signal handlers: the process's own code decides what a signal means."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: Any, listener: socket.socket, *, cert: Path | None = None, key: Path | None = None) -> None:
    """Serve ``app`` on ``listener`` until cancelled; requests under way get a moment to end."""
    config = uvicorn.Config(
        app,
        http="h11",  # whatever else is installed
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=GOODBYE_SECONDS,
        proxy_headers=False,  # they would let any caller choose the name that its requests are recorded under
        server_header=False,
    )
    config.load()
    if cert is not None and key is not None:
        config.ssl = _context(cert, key)
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise


def _context(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput.at("setting api.tls_cert", f"cannot be used: {error}", "check both PEM files") from error
    return context
