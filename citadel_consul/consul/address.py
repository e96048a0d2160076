"""Where Consul is, and how to be let in.

Consul's own tools read ``CONSUL_HTTP_ADDR`` in several spellings; :func:`parse_address` reads the same ones. What the
other ``CONSUL_*`` variables add (token, certificates, …) is put on with :func:`dataclasses.replace` by the settings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from citadel_consul.errors import InvalidInput

Scheme = Literal["http", "https", "unix"]

DEFAULT_PORT = 8500
_SPELLINGS = "write host:port, http://host:port, https://host:port or unix:///path"
_AUTHORITY = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9._~-]+)?)\]"
    r"|(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?))"
    r"(?::(?P<port>[^:]*))?"
)
_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class ConsulAddress:
    """The HTTP API of one Consul agent, with what it takes to speak to it.

    ``host`` has no brackets, also when it is an IPv6 address. ``socket_path`` is set for the scheme ``unix`` alone.
    ``cacert``, ``capath``, ``client_cert`` and ``client_key`` are paths of PEM files (a folder for ``capath``).
    ``datacenter`` is sent as ``dc``; ``None`` leaves it to the agent. Neither ``str`` nor ``repr`` shows the token.
    """

    scheme: Scheme = "http"
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    socket_path: str | None = None
    token: str | None = field(default=None, repr=False)
    cacert: str | None = None
    capath: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    verify: bool = True
    tls_server_name: str | None = None
    datacenter: str | None = None

    def __post_init__(self) -> None:
        _check_token(self.token)
        if (self.scheme == "unix") != (self.socket_path is not None):
            raise InvalidInput.at("Consul address", "a socket path and the scheme 'unix' go together", _SPELLINGS)
        if self.client_key is not None and self.client_cert is None:
            raise InvalidInput.at("Consul client key", "there is a key but no certificate", "set CONSUL_CLIENT_CERT")

    @property
    def base_url(self) -> str:
        """What a request's path is appended to. A unix socket has no host: ``localhost`` stands in for it."""
        if self.scheme == "unix":
            return "http://localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __str__(self) -> str:
        return f"unix://{self.socket_path}" if self.scheme == "unix" else self.base_url


def _check_token(token: str | None) -> None:
    """Refuse what cannot be a header's value, without showing it: raises ``InvalidInput``."""
    if token is not None and not _HEADER_SAFE.fullmatch(token):
        raise InvalidInput.at(
            "Consul token", "it is empty or holds a character that no token has", "look for a stray space or line end"
        )


def parse_address(text: str, place: str = "CONSUL_HTTP_ADDR") -> ConsulAddress:
    """Read an address as ``CONSUL_HTTP_ADDR`` allows it; raise ``InvalidInput`` that names ``place``.

    A bare host takes port 8500; a URL without a port takes that of its scheme, as Consul's own tools do.
    """
    stripped = text.strip()
    scheme, separator, rest = stripped.partition("://")
    if not separator:
        return _network_address("http", stripped, DEFAULT_PORT, place)
    scheme = scheme.lower()
    if scheme == "unix":
        if not rest.startswith("/"):
            raise InvalidInput.at(place, "the path of a unix socket has to be absolute", _SPELLINGS)
        return ConsulAddress(scheme="unix", host="localhost", port=0, socket_path=rest)
    if scheme == "http":
        return _network_address("http", rest, 80, place)
    if scheme == "https":
        return _network_address("https", rest, 443, place)
    raise InvalidInput.at(place, f"unknown scheme {scheme!r}", _SPELLINGS)


def _network_address(scheme: Scheme, rest: str, default_port: int, place: str) -> ConsulAddress:
    if "@" in rest:
        # Not quoted in the message: what stands before the @ is a secret.
        raise InvalidInput.at(place, "credentials do not belong in the address", "use CONSUL_HTTP_TOKEN")
    authority = rest.removesuffix("/")
    if any(mark in authority for mark in "/?#"):
        raise InvalidInput.at(place, f"nothing can follow host and port in {rest!r}", _SPELLINGS)
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise InvalidInput.at(place, f"no host and port in {rest!r}", _SPELLINGS)
    host = parts["ipv6"] or parts["host"]
    return ConsulAddress(scheme=scheme, host=host, port=_port(parts["port"], default_port, place))


def _port(text: str | None, default_port: int, place: str) -> int:
    if text is None:
        return default_port
    port = int(text) if text.isascii() and text.isdecimal() and len(text) <= 5 else 0
    if not 0 < port <= 65535:
        raise InvalidInput.at(place, f"bad port {text!r}", "a port is a number from 1 to 65535")
    return port
