"""Which processes belong to a launch.

A service is more than its main process: it forks workers, and some of those leave its process group or its session
(a double fork) so that a signal to the group misses them. Five kinds of evidence find them:

* the session and the group of the main process, which only its descendants can be in. The kernel does not give a
  number away while a session or group bears it, so this holds as long as we watch the main process; it proves
  nothing about a number read from a file, which may have come round again;
* ``CITADEL_LAUNCH`` in the environment: drawn at random for each launch and inherited by every descendant. It proves
  even after any absence. But programs that set their own title (postgres, redis, nginx) write over their environment;
* having the log of the launch as output, of an orphan: what holds it was given it by the service, and nobody's
  interactive command is an orphan;
* being the child of a process that belongs;
* having belonged when we looked earlier.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from citadel_consul.backends import procfs
from citadel_consul.backends.procfs import Process

MARKER = "CITADEL_LAUNCH"

Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a launch: its marker, a moment before it, and the device and inode of its log.

    ``leader`` is its main process, given only if it was watched until now; ``known`` are earlier finds.
    """

    marker: str
    since_ticks: int
    log: tuple[int, int]
    leader: Identity | None = None
    known: frozenset[Identity] = frozenset()


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the processes of a machine.

    ``ourselves`` is the process that looks; it and process 1 belong to no launch. ``markers`` are by process number;
    ``outputs`` (device and inode of standard output and standard error) are known of orphans and session leaders.
    """

    table: Mapping[int, Process]
    ourselves: int
    markers: Mapping[int, str]
    outputs: Mapping[int, frozenset[tuple[int, int]]]


class Lookout:
    """Looks at this machine for all who ask, without holding up the loop.

    On a machine with thousands of processes a look takes many milliseconds, and fifty services that stop at once ask
    for a hundred. Whoever asks gets a look that began after the question, so one look can answer many.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._begun = 0
        self._last: tuple[int, Look] | None = None

    async def look(self) -> Look:
        """A look that is not older than the call. Raises ``BackendUnavailable`` when one cannot look."""
        asked = self._begun
        async with self._lock:
            if self._last is None or self._last[0] <= asked:
                self._begun += 1
                self._last = self._begun, await asyncio.to_thread(look)
            return self._last[1]


def look() -> Look:
    """Look at this machine now."""
    table = {process.pid: process for process in procfs.processes()}
    ourselves = os.getpid()
    hosts = orphan_hosts(table, ourselves)
    markers = {pid: procfs.variable(pid, MARKER) for pid in table}
    close = [process.pid for process in table.values() if process.parent in hosts or process.pid == process.session]
    return Look(
        table,
        ourselves,
        {pid: marker for pid, marker in markers.items() if marker},
        {pid: procfs.outputs(pid) for pid in close},
    )


def orphan_hosts(table: Mapping[int, Process], ourselves: int) -> frozenset[int]:
    """Where orphans go: process 1, us, or whichever of our ancestors is a parent of last resort."""
    hosts = {1, ourselves}
    process = table.get(ourselves)
    while process is not None and process.parent not in hosts:
        hosts.add(process.parent)
        process = table.get(process.parent)
    return frozenset(hosts)


def members(seen: Look, evidence: Evidence) -> list[Process]:
    """The living processes of a launch, its main process among them. Never who looks."""
    # A descendant is never older than what it descends from.
    candidates = _since(seen, evidence.since_ticks)
    leader = _trusted_leader(candidates, evidence)
    hosts = orphan_hosts(seen.table, seen.ourselves)
    chosen = {
        process.pid
        for process in candidates.values()
        if (leader is not None and leader in (process.session, process.group))
        or process.identity in evidence.known
        or seen.markers.get(process.pid) == evidence.marker
        or (process.parent in hosts and evidence.log in seen.outputs.get(process.pid, ()))
    }
    _add_descendants(chosen, candidates.values())
    return [candidates[pid] for pid in sorted(chosen) if not candidates[pid].ended]


def main_process(seen: Look, evidence: Evidence) -> Process | None:
    """The main process of a launch whose number was never written down, or ``None`` if it is gone.

    It leads the session it was started in, and bears the marker or has the log as output. Of several (a service
    whose child leads a session, too) it is the one that none of the others begot, and of those the oldest.
    """
    leaders = {
        process.pid: process
        for process in _since(seen, evidence.since_ticks).values()
        if process.pid == process.session
        and not process.ended
        and (seen.markers.get(process.pid) == evidence.marker or evidence.log in seen.outputs.get(process.pid, ()))
    }
    roots = [process for process in leaders.values() if process.parent not in leaders]
    return min(roots, key=lambda process: (process.start_ticks, process.pid), default=None)


def by_place(seen: Look) -> dict[str, list[Process]]:
    """The processes that bear any marker, by its first part, which names the place of their record."""
    found: dict[str, list[Process]] = {}
    for process in _since(seen, 0).values():
        marker = seen.markers.get(process.pid)
        if marker and not process.ended:
            found.setdefault(marker.partition("-")[0], []).append(process)
    return found


def _since(seen: Look, ticks: int) -> dict[int, Process]:
    never: Collection[int] = (1, seen.ourselves)
    return {pid: process for pid, process in seen.table.items() if process.start_ticks >= ticks and pid not in never}


def _trusted_leader(candidates: Mapping[int, Process], evidence: Evidence) -> int | None:
    if evidence.leader is None:
        return None
    occupant = candidates.get(evidence.leader[0])
    reused = occupant is not None and occupant.identity != evidence.leader
    return None if reused else evidence.leader[0]


def _add_descendants(chosen: set[int], candidates: Iterable[Process]) -> None:
    processes = list(candidates)
    grown = True
    while grown:
        children = {process.pid for process in processes if process.parent in chosen} - chosen
        chosen |= children
        grown = bool(children)
