"""The Docker engine: the one that runs, or one that the lab starts and later stops, by process id."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from . import layout
from .command import find_program, run, search_path
from .errors import LabError
from .host import Report

RECORD = layout.STATE / "dockerd.json"
LOG = layout.STATE / "dockerd.log"
START_SECONDS = 60.0
STOP_SECONDS = 30.0


def engine_answers() -> bool:
    """Whether a Docker engine can be used from here."""
    if find_program("docker") is None:
        return False
    return run(["docker", "version", "--format", "{{.Server.Version}}"], check=False).returncode == 0


def ensure_engine(report: Report) -> None:
    """Have a Docker engine: start one, and remember it, if none answers. Raises LabError if that fails."""
    if engine_answers():
        return
    _let_it_end()
    if os.geteuid() != 0:
        raise LabError("no Docker engine answers. Start it (systemctl start docker), or run bin/lab as root")
    if "DOCKER_HOST" in os.environ:
        raise LabError(f"no Docker engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}")
    report("starting dockerd")
    layout.STATE.mkdir(parents=True, exist_ok=True)
    with LOG.open("a") as log:
        process = subprocess.Popen(
            [find_program("dockerd") or "dockerd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PATH": search_path()},
        )
    RECORD.write_text(json.dumps({"pid": process.pid, "start": process_start(process.pid)}))
    deadline = time.monotonic() + START_SECONDS
    while not engine_answers():
        if process.poll() is not None or time.monotonic() > deadline:
            stop_engine()
            tail = "\n".join(f"  {line}" for line in LOG.read_text(errors="replace").splitlines()[-5:])
            raise LabError(f"dockerd does not start:\n{tail}")
        time.sleep(0.2)


def stop_engine() -> bool:
    """Stop the engine that the lab started. False if it started none, or that one is gone already."""
    pid = _recorded()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        _let_it_end()
    RECORD.unlink(missing_ok=True)
    return pid is not None


def _recorded() -> int | None:
    """The process id of the engine that the lab started, if that process still runs."""
    try:
        record = json.loads(RECORD.read_text())
    except (OSError, ValueError):
        return None
    # A number alone may be another process by now; with its start time it is unique.
    pid = int(record["pid"])
    return pid if record["start"] is not None and process_start(pid) == record["start"] else None


def _let_it_end() -> None:
    """Wait for the end of the engine that the lab started, which first stops its containers: two exclude each other."""
    deadline = time.monotonic() + STOP_SECONDS
    while (pid := _recorded()) is not None:
        if time.monotonic() > deadline:
            raise LabError(f"dockerd (pid {pid}) does not end; its log is {LOG}")
        time.sleep(0.1)


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none (a zombie counts as none)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in brackets, and may itself hold spaces and brackets.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])
