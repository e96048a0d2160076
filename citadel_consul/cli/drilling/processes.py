"""The processes of a stack on this machine: what may be killed for a drill, and what is left after a shutdown."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from citadel_consul.backends import pidfd, procfs
from citadel_consul.backends.family import MARKER, Identity
from citadel_consul.core.lifecycle import Observed
from citadel_consul.core.model import Instance

SAME_MOMENT_SECONDS = 2.0


def proven(stack: str, instance: Instance, pid: int | None) -> Identity | None:
    """The process ``pid`` if it is here and is the one of ``instance``, else None.

    A number alone proves nothing: the instance may run on another machine. The proof is the environment that its node
    agent gave it. Programs that write over theirs cannot be proven, so they are not killed.
    """
    process = procfs.read(pid) if pid is not None else None
    if pid is None or process is None or process.ended:
        return None
    expected = {"CITADEL_STACK": stack, "CITADEL_SERVICE": instance.service, "CITADEL_NODE": instance.node}
    if any(procfs.variable(pid, name) != value for name, value in expected.items()):
        return None
    return process.identity


def likely(stack: str, instance: Instance, observed: Observed | None) -> Identity | None:
    """The process of ``instance`` if it seems to be here: proven, or of that number and started at that moment.

    Enough to look at it, and not to kill it.
    """
    pid = observed.pid if observed is not None else None
    identity = proven(stack, instance, pid)
    process = procfs.read(pid) if pid is not None and identity is None else None
    if observed is None or observed.started_at is None or process is None or process.ended:
        return identity
    age = (procfs.ticks_since_boot() - process.start_ticks) / os.sysconf("SC_CLK_TCK")
    return process.identity if abs(time.time() - age - observed.started_at) < SAME_MOMENT_SECONDS else None


def kill(identity: Identity) -> bool:
    """SIGKILL for exactly this process; whether it is gone, or going. Raises BackendUnavailable or BackendError."""
    descriptor = pidfd.open_verified(identity)
    if descriptor is None:
        return True
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except PermissionError:
        return False
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)
    return True


def with_descendants(identities: Iterable[Identity]) -> frozenset[Identity]:
    """``identities``, and everything that descends from them now."""
    chosen = set(identities)
    pids = {pid for pid, _ in chosen}
    table = procfs.processes()
    grown = True
    while grown:
        new = {process for process in table if process.parent in pids and process.pid not in pids}
        chosen |= {process.identity for process in new}
        pids |= {process.pid for process in new}
        grown = bool(new)
    return frozenset(chosen)


def of_stack(stack: str) -> Mapping[Identity, str]:
    """The living processes here that node agents of ``stack`` started, or that descend from such, each in words."""
    found = {}
    for process in procfs.processes():
        if process.ended or procfs.variable(process.pid, MARKER) is None:
            continue
        if procfs.variable(process.pid, "CITADEL_STACK") == stack:
            service = procfs.variable(process.pid, "CITADEL_SERVICE") or "a service"
            found[process.identity] = f"{service}: {_words(process.pid)}"
    return found


def living(identities: Iterable[Identity]) -> Mapping[Identity, str]:
    """Those that still run, each in words."""
    found = {}
    for identity in identities:
        process = procfs.read(identity[0])
        if process is not None and process.identity == identity and not process.ended:
            found[identity] = _words(identity[0])
    return found


def _words(pid: int) -> str:
    """What a person recognises a process by: its number and its program. Arguments can hold secrets."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        name = "?"
    return f"process {pid} ({name})"
