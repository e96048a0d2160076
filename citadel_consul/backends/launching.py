"""Starting a process so that it can be found again: intent, exec, record.

Synchronous from the first to the last, so that no cancellation can come between them; it takes one or two
milliseconds. What a kill in between leads to is told in :mod:`.process`.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from citadel_consul.backends import logs, pidfd, procfs, spawn
from citadel_consul.backends.base import Launch
from citadel_consul.backends.journal import Journal, Record, UnreadableRecord
from citadel_consul.backends.refusals import translated
from citadel_consul.core.model import Instance, ProcessBackend
from citadel_consul.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Launched:
    """A running program: on record, and with a process descriptor open (whose owner the caller becomes)."""

    record: Record
    pidfd: int
    child: subprocess.Popen[bytes]


def launch(journal: Journal, log_path: Path, order: Launch, spec: ProcessBackend) -> Launched:
    """Execute the program of ``spec`` with its output in ``log_path``.

    Raises:
        BackendError: it cannot be started; nothing was, and the record is as it was before.
        BackendUnavailable: the same, but it may work later.
    """
    instance = order.instance
    if spec.reload_signal is not None:
        spawn.signal_named(instance, "reload_signal", spec.reload_signal)
    stop_signal = spawn.signal_named(instance, "stop_signal", spec.stop_signal)
    marker = journal.new_marker(instance)
    program = spawn.prepare(order, spec, marker)
    log = _open_log(program, log_path)
    try:
        status = os.fstat(log)
        intent = Record(
            generation=order.generation,
            marker=marker,
            boot_id=procfs.boot_id(),
            since_ticks=procfs.ticks_since_boot() - 1,  # one of tolerance for the rounding of a float
            stop_signal=stop_signal.name,
            log=(status.st_dev, status.st_ino),
        )
        return _run(journal, program, intent, log)
    finally:
        os.close(log)


def write_if_possible(journal: Journal, instance: Instance, record: Record) -> None:
    """Write what is good to have but can be found out without: once the intent is there, its marker finds it all."""
    try:
        journal.write(instance, record)
    except OSError as error:
        _log.warning("%s: cannot write its record %s: %s", instance, journal.path(instance), error)


def _run(journal: Journal, program: spawn.Program, intent: Record, log: int) -> Launched:
    instance = program.instance
    previous = _previous(journal, instance)
    try:
        journal.write(instance, intent)
    except OSError as error:
        raise translated(f"{instance}: cannot write its record {journal.path(instance)}", error) from error
    try:
        child = spawn.execute(program, log)
        try:
            return _record(journal, instance, intent, child)
        except (BackendError, BackendUnavailable):
            # It runs and cannot be watched, which is worse than not running.
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
    except (BackendError, BackendUnavailable):
        if previous is None:
            journal.forget(instance)
        else:
            write_if_possible(journal, instance, previous)
        raise


def _record(journal: Journal, instance: Instance, intent: Record, child: subprocess.Popen[bytes]) -> Launched:
    # Not waited for yet, so it is there even if it has ended already.
    process = procfs.read(child.pid)
    descriptor = None if process is None else pidfd.open_verified(process.identity)
    if process is None or descriptor is None:
        raise BackendUnavailable(f"{instance}: process {child.pid} cannot be watched: it is not to be seen in /proc")
    record = replace(intent, pid=process.pid, start_ticks=process.start_ticks)
    write_if_possible(journal, instance, record)
    return Launched(record, descriptor, child)


def _open_log(program: spawn.Program, path: Path) -> int:
    account = program.account
    try:
        return logs.open_for_service(path, (account.uid, account.gid) if account else None)
    except OSError as error:
        raise translated(f"{program.instance}: cannot open its log {path}", error) from error


def _previous(journal: Journal, instance: Instance) -> Record | None:
    try:
        return journal.read(instance)
    except UnreadableRecord:
        return None
