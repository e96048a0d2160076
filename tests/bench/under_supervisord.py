"""A graph under supervisord, which knows an order but no readiness. It is driven in two ways:

* ``supervisord``: as it is meant, with a priority for each service (its depth), and all told to start. It starts
  them in that order and waits for none, so the edges are broken; it is there to show that.
* ``supervisord, by depth``: by a script that tells it to start one depth and waits until it calls them all RUNNING,
  which it does ``startsecs`` after the exec, a whole number of seconds, whether or not the service is ready.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from cycle import Cycle, started, stopped
from figures import NotMeasured
from peer_environment import peer_program
from real_world import free_port
from timed_service import TimedServices

ASK_SECONDS = 0.2
LARGEST = 200
"""Services that are started by depth."""
UP_SECONDS = 20.0
DONE_SECONDS = 120.0


@contextmanager
def under_supervisord(services: TimedServices, *, by_depth: bool) -> Iterator[Callable[[], Cycle]]:
    """Bring it up with nothing started; what is yielded starts and stops everything once."""
    if by_depth and len(services.graph.services) > LARGEST:
        raise NotMeasured(f"one depth after the other, more than {LARGEST} services take minutes")
    (folder := services.folder / f"supervisord-{by_depth}").mkdir()
    port = free_port()
    config = folder / "supervisord.conf"
    config.write_text(_config(services, folder, port))
    words = [str(peer_program("supervisord")), "-c", str(config)]
    daemon = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        server: Any = ServerProxy(f"http://127.0.0.1:{port}/RPC2").supervisor
        _until(lambda: _answers(server), UP_SECONDS, "an answer of supervisord")
        once = _cycle_by_depth if by_depth else _cycle_at_once
        yield lambda: once(services, server)
    finally:
        daemon.terminate()  # it stops what it runs
        daemon.wait()


def _config(services: TimedServices, folder: Path, port: int) -> str:
    depths = services.graph.depths()
    head = (
        f"[supervisord]\nnodaemon=true\nminfds=4096\nlogfile={folder}/supervisord.log\n"
        f"pidfile={folder}/supervisord.pid\nchildlogdir={folder}\n[inet_http_server]\nport=127.0.0.1:{port}\n"
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
    )
    return head + "".join(
        f"[program:{name}]\ncommand={' '.join(services.command(name))}\nautostart=false\n"
        f"startsecs={math.ceil(timing.ready)}\npriority={depths[name]}\n"
        "stdout_logfile=NONE\nstderr_logfile=NONE\n"
        for name, timing in services.graph.services.items()
    )


def _cycle_at_once(services: TimedServices, server: Any) -> Cycle:
    services.clear()
    requested = time.time()
    server.startAllProcesses(False)
    start = started(services.graph, services.until(lambda life: life.listening), requested, None)
    _until(lambda: _all_in(server, services.graph.services, "RUNNING"), DONE_SECONDS, "everything RUNNING")
    requested = time.time()
    server.stopAllProcesses(False)
    return Cycle(start, stopped(services.graph, services.until(lambda life: life.exited), requested, None))


def _cycle_by_depth(services: TimedServices, server: Any) -> Cycle:
    services.clear()
    depths = services.graph.depths()
    levels = [[n for n, depth in depths.items() if depth == d] for d in range(1, max(depths.values()) + 1)]
    requested = time.time()
    for level in levels:
        for name in level:
            server.startProcess(name, False)
        if level is not levels[-1]:
            _until(partial(_all_in, server, level, "RUNNING"), DONE_SECONDS, "a depth RUNNING")
    start = started(services.graph, services.until(lambda life: life.listening), requested, None)
    _until(lambda: _all_in(server, services.graph.services, "RUNNING"), DONE_SECONDS, "everything RUNNING")
    requested = time.time()
    for level in reversed(levels):
        for name in level:
            server.stopProcess(name, False)
        if level is not levels[0]:
            _until(partial(_all_in, server, level, "STOPPED"), DONE_SECONDS, "a depth STOPPED")
    return Cycle(start, stopped(services.graph, services.until(lambda life: life.exited), requested, None))


def _all_in(server: Any, names: Iterable[str], state: str) -> bool:
    states = {info["name"]: info["statename"] for info in server.getAllProcessInfo()}
    return all(states[name] == state for name in names)


def _answers(server: Any) -> bool:
    with suppress(OSError, Fault):
        server.getState()
        return True
    return False


def _until(condition: Callable[[], bool], within_seconds: float, what: str) -> None:
    deadline = time.monotonic() + within_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise NotMeasured(f"supervisord: not within {within_seconds:g} s: {what}")
        time.sleep(ASK_SECONDS)
