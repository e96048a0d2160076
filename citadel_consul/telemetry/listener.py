"""Sockets to listen on."""

from __future__ import annotations

import socket

from citadel_consul.errors import InvalidInput

BACKLOG = 128


def bind(host: str, port: int, *, setting: str, flag: str) -> socket.socket:
    """A listening socket, not blocking. Raises InvalidInput that names ``setting`` if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Naming the protocol matters: asyncio switches Nagle's algorithm off only for sockets that say that they are TCP,
    # and with it on, each answer waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        message = f"{host}:{port} cannot be bound: {error.strerror or error}"
        raise InvalidInput.at(f"setting {setting}", message, f"choose another with {flag}") from error
    listener.setblocking(False)
    return listener


def address_of(listener: socket.socket, host: str) -> str:
    """``host:port`` of ``listener``, for those who reach it as ``host``."""
    port = listener.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
