"""Who listens on the ports that a stack wants for itself.

Looked at before anything is started, because the alternative is a service that dies of 'address already in use' in the
middle of a startup, in a log file.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from citadel_consul.backends import procfs
from citadel_consul.core.model import ServiceSpec, Stack
from citadel_consul.errors import Problem

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_PROC = Path("/proc")
_LISTEN = "0A"  # the state of a listening socket in /proc/net/tcp, see proc(5)
_COMMAND_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Occupant:
    """A process that listens."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid}: {self.command}"

    @property
    def remedy(self) -> str:
        """How to be rid of it."""
        stack = procfs.variable(self.pid, "CITADEL_STACK")
        if stack is None:
            return f"end that process: kill {self.pid}"
        return f"it is a service of stack {stack!r} that another citadel runs: stop it there"


def taken_ports(stack: Stack, running: Collection[str]) -> list[Problem]:
    """The ports of ``stack`` that somebody else has. Services in ``running`` may have theirs themselves.

    Only what is certain is judged: services that are processes, with an endpoint on loopback.
    """
    problems = []
    for spec in stack.services.values():
        place = _own_port(spec)
        if spec.name in running or place is None or is_free(*place):
            continue
        host, port = place
        problems.append(
            _problem(f"service {spec.name}", f"its port {host}:{port}", port, "change it in the stack file")
        )
    return problems


def taken_address(what: str, host: str, port: int, way_round: str) -> list[Problem]:
    """A problem if ``what`` cannot listen at ``host``; ``way_round`` says what can be done instead of freeing it."""
    return [] if is_free(host, port) else [_problem(what, f"port {port}", port, way_round)]


def _problem(what: str, port_name: str, port: int, way_round: str) -> Problem:
    who = occupant(port)
    if who is None:
        return Problem(what, f"{port_name} is in use", f"`ss -ltnp 'sport = :{port}'` tells by whom, or {way_round}")
    return Problem(what, f"{port_name} is in use by {who}", f"{who.remedy}, or {way_round}")


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: connections in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
        return True


def occupant(port: int) -> Occupant | None:
    """The process that listens on TCP ``port``; None if it is not to be seen (another user's, another namespace's)."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not wanted:
        return None
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and _holds(entry, wanted):
            return Occupant(int(entry.name), _command(entry))
    return None


def _own_port(spec: ServiceSpec) -> tuple[str, int] | None:
    if spec.backend.kind != "process" or spec.endpoint is None:  # others run elsewhere, or listen nowhere
        return None
    try:
        parts = urlsplit(spec.endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:  # a template in place of a port, for instance
        return None
    if host not in LOOPBACK or port is None:
        return None
    return ("127.0.0.1" if host == "localhost" else host), port


def _listening_inodes(port: int) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _holds(process: Path, sockets: Collection[str]) -> bool:
    try:
        return any(str(link.readlink()) in sockets for link in (process / "fd").iterdir())
    except OSError:  # not ours to see, or it ended meanwhile
        return False


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "?"
    return re.sub(r"\s+", " ", words).strip()[:_COMMAND_LENGTH] or "?"
