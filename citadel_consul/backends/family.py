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

import os
from collections.abc import Callable, Collection, Iterable, Mapping
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
    """One look at the process table, and how to look closer at a single process.

    ``ourselves`` is the process that looks; it and process 1 belong to no launch. An orphan is a child of one of
    ``orphan_hosts``: process 1, or us or one of our ancestors as the parent of last resort.
    """

    table: Mapping[int, Process]
    ourselves: int
    marker_of: Callable[[Process], str | None]
    has_output: Callable[[Process, tuple[int, int]], bool]

    @property
    def orphan_hosts(self) -> frozenset[int]:
        """Where orphans go."""
        hosts = {1, self.ourselves}
        process = self.table.get(self.ourselves)
        while process is not None and process.parent not in hosts:
            hosts.add(process.parent)
            process = self.table.get(process.parent)
        return frozenset(hosts)


def look() -> Look:
    """Look at this machine."""
    return Look(
        table={process.pid: process for process in procfs.processes()},
        ourselves=os.getpid(),
        marker_of=lambda process: procfs.variable(process.pid, MARKER),
        has_output=lambda process, file: procfs.writes_to(process.pid, *file),
    )


def members(evidence: Evidence) -> list[Process]:
    """The living processes of a launch on this machine, its main process among them. Never the caller."""
    return select(look(), evidence)


def select(seen: Look, evidence: Evidence) -> list[Process]:
    """The pure part of :func:`members`."""
    # A descendant is never older than what it descends from, which spares reading most environments.
    candidates = _since(seen, evidence.since_ticks)
    leader = _trusted_leader(candidates, evidence)
    hosts = seen.orphan_hosts
    chosen = {
        process.pid
        for process in candidates.values()
        if (leader is not None and leader in (process.session, process.group))
        or process.identity in evidence.known
        or seen.marker_of(process) == evidence.marker
        or (process.parent in hosts and seen.has_output(process, evidence.log))
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
        and (seen.marker_of(process) == evidence.marker or seen.has_output(process, evidence.log))
    }
    roots = [process for process in leaders.values() if process.parent not in leaders]
    return min(roots, key=lambda process: (process.start_ticks, process.pid), default=None)


def by_place(seen: Look) -> dict[str, list[Process]]:
    """The processes that bear any marker, by its first part, which names the place of their record."""
    found: dict[str, list[Process]] = {}
    for process in _since(seen, 0).values():
        marker = seen.marker_of(process)
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
