"""Taking a service's endpoint apart into what Consul is told: address and port."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from citadel_consul.errors import InvalidInput

# The registered ports of the schemes a stack is likely to use, for endpoints that leave the port out.
DEFAULT_PORTS = {
    "http": 80,
    "https": 443,
    "ws": 80,
    "wss": 443,
    "redis": 6379,
    "rediss": 6379,
    "postgres": 5432,
    "postgresql": 5432,
    "mysql": 3306,
    "mongodb": 27017,
    "amqp": 5672,
    "amqps": 5671,
    "nats": 4222,
}
_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - refused, not bound to


class Endpoint(NamedTuple):
    """Where clients reach an instance; ``port`` is None for a service that listens on none."""

    scheme: str | None
    address: str
    port: int | None


def parse_endpoint(place: str, url: str | None, node_address: str) -> Endpoint:
    """The parts of ``url``; without one the service is at the node's address and has no port.

    ``localhost`` becomes 127.0.0.1, because a DNS answer cannot say 'localhost'. Raises InvalidInput at ``place``
    for what is no URL with a host, a bad port, and an 'any' address, which Consul refuses.
    """
    if url is None:
        return Endpoint(None, node_address, None)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput.at(place, f"{url!r} is not a URL: {error}", "write scheme://host:port") from error
    if not parts.scheme or not host:
        raise InvalidInput.at(place, f"{url!r} has no scheme or no host", "write scheme://host:port")
    if host in _ANY_ADDRESS:
        raise InvalidInput.at(place, f"{host} is where a server listens, not where clients reach it", "name a host")
    address = "127.0.0.1" if host == "localhost" else host
    return Endpoint(parts.scheme, address, DEFAULT_PORTS.get(parts.scheme) if port is None else port)
