"""The ports of a Consul of our own, on loopback."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace

from citadel_consul.errors import ConsulUnavailable

LOOPBACK = "127.0.0.1"
OFF = -1

# Below the kernel's ephemeral range (32768 on), so that no outgoing connection takes a port between choice and bind.
_LOWEST, _COUNT = 20_000, 12_000
_DATAGRAMS = frozenset({"dns", "serf"})


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a Consul server listens. `OFF` (-1) for ``dns`` or ``grpc`` means: not at all.

    The defaults are Consul's own, so that its tools find it without being told.
    """

    http: int = 8500
    dns: int = 8600
    grpc: int = 8502
    serf: int = 8301
    server: int = 8300

    def taken(self) -> dict[str, int]:
        """Those that cannot be bound at the moment, by name."""
        return {name: port for name, port in asdict(self).items() if port != OFF and not is_free(name, port)}

    def with_free(self, names: Collection[str]) -> Ports:
        """The same ports, but free ones in place of those named."""
        used = set(asdict(self).values())
        changes: dict[str, int] = {}
        for name in names:
            changes[name] = _choose(used)
            used.add(changes[name])
        return replace(self, **changes)


def free_ports() -> Ports:
    """Ports of which none is in use: for a Consul that must not get in the way of another."""
    return Ports().with_free([field.name for field in fields(Ports)])


def is_free(name: str, port: int) -> bool:
    """Whether Consul could bind ``port`` on loopback. ``name`` (a field of `Ports`) tells if it needs UDP as well."""
    kinds = [socket.SOCK_STREAM, socket.SOCK_DGRAM] if name in _DATAGRAMS else [socket.SOCK_STREAM]
    return all(_can_bind(kind, port) for kind in kinds)


def _can_bind(kind: socket.SocketKind, port: int) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind is socket.SOCK_STREAM:
            # As Go's listener does: connections in TIME_WAIT are no obstacle. For UDP it would hide a clash.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _choose(used: Collection[int]) -> int:
    for _ in range(200):
        port = _LOWEST + secrets.randbelow(_COUNT)
        # Both kinds, whatever this one needs: whoever keeps a port for a program that is down holds its datagrams.
        if port not in used and _can_bind(socket.SOCK_DGRAM, port) and _can_bind(socket.SOCK_STREAM, port):
            return port
    raise ConsulUnavailable(f"no free port for Consul between {_LOWEST} and {_LOWEST + _COUNT} on {LOOPBACK}")
