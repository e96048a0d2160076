"""How many connections a service has open, as the kernel of its network namespace counts them (``proc_pid_net(5)``).

Counted are the service's ends: established connections whose local port is that of the service. Connections that its
backlog holds and it has not accepted yet are among them, and idle ones that a client keeps for later use as well.
"""

from __future__ import annotations

from pathlib import Path

_ESTABLISHED = "01"
_LISTEN = "0A"
_TABLES = ("tcp", "tcp6")


def established(port: int, pid: int | None = None, proc: Path = Path("/proc")) -> int | None:
    """The connections that are open to ``port`` in the network namespace of ``pid`` (ours if None).

    None if it cannot be told: nobody listens on that port there (a container's port is mapped to another one), or the
    tables cannot be read.
    """
    listens, count = False, 0
    for table in _TABLES:
        try:
            lines = (proc / (str(pid) if pid is not None else "self") / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue  # a kernel without IPv6 has only one of them
        for line in lines:
            local, state = _local_port_and_state(line)
            if local == port:
                listens = listens or state == _LISTEN
                count += state == _ESTABLISHED
    return count if listens else None


def _local_port_and_state(line: str) -> tuple[int, str]:
    """From a line such as ``0: 0100007F:1F90 00000000:0000 0A …``."""
    fields = line.split(maxsplit=4)
    return int(fields[1].rpartition(":")[2], 16), fields[3]
