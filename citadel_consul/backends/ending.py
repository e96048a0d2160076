"""Ending every process of a launch."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace

from citadel_consul.backends import family, pidfd
from citadel_consul.backends.family import Evidence, Lookout
from citadel_consul.backends.procfs import Process
from citadel_consul.errors import BackendUnavailable

# SIGKILL works at once unless a process is stuck in the kernel (a dead network file system); then nothing works.
KILL_SECONDS = 5.0


async def end_members(lookout: Lookout, evidence: Evidence, number: int, grace_seconds: float) -> None:
    """Signal what belongs to a launch, and kill what is still there after ``grace_seconds``.

    Looks again until nothing is found, since processes fork while one kills them.

    Raises:
        BackendUnavailable: something outlived SIGKILL, or one cannot look.
    """
    loop = asyncio.get_running_loop()
    found = family.members(await lookout.look(), evidence)
    if not found:
        return
    if grace_seconds > 0:
        evidence = await _signal(evidence, found, number, grace_seconds)
        found = family.members(await lookout.look(), evidence)
    deadline = loop.time() + KILL_SECONDS
    while found:
        if loop.time() >= deadline:
            raise BackendUnavailable(f"these processes do not end even on SIGKILL: {_listed(found)}")
        evidence = await _signal(evidence, found, signal.SIGKILL, 1.0)
        found = family.members(await lookout.look(), evidence)


async def _signal(evidence: Evidence, found: list[Process], number: int, grace_seconds: float) -> Evidence:
    identities = frozenset(process.identity for process in found)
    await pidfd.end(identities, number, grace_seconds)
    return replace(evidence, known=evidence.known | identities)


def _listed(found: list[Process]) -> str:
    return ", ".join(f"{process.pid} (state {process.state})" for process in found)
