"""A graph under process-compose, where it is on PATH: ``condition: process_healthy``, a readiness probe every second.

A second is the shortest period that it takes. Stopped is by SIGTERM, with its own option for a stop in order.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cycle import Cycle, started, stopped
from figures import NotMeasured
from timed_service import WITHIN_SECONDS, TimedServices


@contextmanager
def under_process_compose(services: TimedServices) -> Iterator[Callable[[], Cycle]]:
    """What is yielded starts and stops everything once, process-compose itself included."""
    program = shutil.which("process-compose")
    if program is None:
        raise NotMeasured("not installed")
    file = services.folder / "process-compose.json"
    file.write_text(json.dumps({"version": "0.5", "processes": _processes(services)}))  # JSON is YAML
    words = [program, "up", "--config", str(file), "--tui=false", "--no-server", "--ordered-shutdown"]
    yield lambda: _cycle(services, words)


def _processes(services: TimedServices) -> dict[str, object]:
    return {
        name: {
            "command": shlex.join(services.command(name)),
            "depends_on": {needed: {"condition": "process_healthy"} for needed in services.graph.needs(name)},
            "readiness_probe": {
                "exec": {"command": shlex.join(services.probe(name))},
                "period_seconds": 1,
                "timeout_seconds": 5,
                "failure_threshold": 60,
            },
            "shutdown": {"signal": 15, "timeout_seconds": 60},
        }
        for name in services.graph.services
    }


def _cycle(services: TimedServices, words: list[str]) -> Cycle:
    services.clear()
    requested = time.time()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=services.folder)
    try:
        start = started(services.graph, services.until(lambda life: life.listening), requested, None)
        requested = time.time()
        process.terminate()
        process.wait(WITHIN_SECONDS)
        return Cycle(start, stopped(services.graph, services.until(lambda life: life.exited), requested, time.time()))
    finally:
        process.kill()
        process.wait()
