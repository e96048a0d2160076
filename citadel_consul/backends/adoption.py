"""What an earlier agent left of an instance: a running process, its remains, or a riddle.

Nothing is changed here; see the table in :mod:`.process` for why these are all the cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from citadel_consul.backends import family, procfs
from citadel_consul.backends.base import Exit, Unproven
from citadel_consul.backends.journal import Journal, Record, UnreadableRecord
from citadel_consul.backends.procfs import Process
from citadel_consul.core.model import Instance


@dataclass(frozen=True, slots=True)
class Alive:
    """It runs, and the record names its main process."""

    record: Record


@dataclass(frozen=True, slots=True)
class Ended:
    """It does not run. ``record.exit`` says how it ended, ``record.swept`` whether it may have left something."""

    record: Record | None


Found = Alive | Ended | Unproven


def examine(journal: Journal, instance: Instance, strangers: Mapping[str, list[Process]]) -> Found:
    """Find out what is left. ``strangers`` are the processes with a marker when this agent began, by place."""
    try:
        record = journal.read(instance)
    except UnreadableRecord as error:
        return _without_record(journal, instance, strangers, f"its record cannot be read ({error})")
    if record is None:
        return _without_record(journal, instance, strangers, "there is no record of it")
    if record.boot_id != procfs.boot_id():
        return _ended(record, "the machine was restarted", swept=True)
    if record.exit is not None:
        return Ended(record)
    return _examine_process(record) if record.identity else _examine_intent(record)


def _without_record(
    journal: Journal, instance: Instance, strangers: Mapping[str, list[Process]], why: str
) -> Ended | Unproven:
    for process in strangers.get(journal.place(instance), ()):
        now = procfs.read(process.pid)
        if now is not None and now.identity == process.identity and not now.ended:
            return Unproven(
                f"process {process.pid} was started for {instance}, but {why}; "
                f"it is left alone: stop it by hand, then try again"
            )
    return Ended(None)


def _examine_intent(record: Record) -> Alive | Ended:
    process = family.main_process(family.look(), record.evidence)
    if process is None:
        return _ended(record, "no agent saw its end")
    return Alive(replace(record, pid=process.pid, start_ticks=process.start_ticks))


def _examine_process(record: Record) -> Found:
    pid = record.pid or 0
    process = procfs.read(pid)
    if process is None and procfs.exists(pid):
        return Unproven(f"process {pid} exists, but this agent may not look at it in /proc")
    if process is not None and process.identity == record.identity and not process.ended:
        return Alive(record)
    if process is not None and process.identity != record.identity and _bears_marker(process, record):
        return Unproven(
            f"process {pid} bears the marker of this launch, but its start time is {process.start_ticks} and not "
            f"{record.start_ticks} as recorded; it is left alone: stop it by hand, then try again"
        )
    return _ended(record, "no agent saw its end")


def _bears_marker(process: Process, record: Record) -> bool:
    return procfs.variable(process.pid, family.MARKER) == record.marker


def _ended(record: Record, why: str, *, swept: bool = False) -> Ended:
    known = record.exit or Exit.unknown(why)
    return Ended(replace(record, exit=known, swept=record.swept or swept))
