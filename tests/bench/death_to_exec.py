"""How long a killed service is gone: from SIGKILL to the exec of its replacement, through the leader.

    .venv/bin/python tests/bench/death_to_exec.py [--backend process] [--trials 100] [--services 12]
                                                  [--supervisord-trials 10]

The road is the whole one: the node agent sees the exit, reports it to Consul, the leader's watch wakes, it decides,
writes the order under its fence, and the agent's watch wakes and starts the process. The clock runs from just before
the kill until the agent's own history says 'started', which it writes after exec has succeeded (of a unit: after
systemd says that it runs). supervisord, if it is installed, is measured in the same run with autorestart, from the kill
until its new child is there. Where no systemd runs, `--backend systemd` boots one in a container and measures there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "system")]

import in_machine
from backend_kinds import KINDS, Victims
from consul_process import ConsulProcess
from figures import Figure, print_table, summary
from real_world import World

from citadel_consul.consul.binary import find_consul
from citadel_consul.core.model import RecoveryPolicy
from citadel_consul.core.operation import Kind

REST_SECONDS = 0.3
WITHIN_SECONDS = 20.0


def measure(world: World, services: int, trials: int, victims: Victims) -> list[float]:
    """Seconds for each trial of killing one of half of the services after the other."""
    # Each trial is a bout of its own. Should Consul's check have met a service between two lives, it is not: then the
    # second attempt must not wait for up to the usual minute, which is not what is measured.
    policy = RecoveryPolicy(
        enabled=True, attempts=1000, delay_seconds=0.001, max_delay_seconds=0.001, reset_after_seconds=REST_SECONDS / 2
    )
    world.apply([victims.spec(world, f"s{n}", policy) for n in range(services)], [])
    world.orchestrator()
    world.agent()
    world.until_led(within=60)
    assert world.operate(Kind.STARTUP, within=120).state == "succeeded", world.logs()
    mortal = max(1, services // 2)  # more than half within a minute is a mass failure, and recovery would freeze
    return [_kill_once(world, f"s{n % mortal}", victims) for n in range(trials)]


def _kill_once(world: World, service: str, victims: Victims) -> float:
    history = world.folder / "state" / world.stack / "n1" / "history.jsonl"
    world.until(lambda: _last(history, service, "ready") > _last(history, service, "started"), what="ready")
    time.sleep(REST_SECONDS)
    began = time.time()
    victims.kill(world, service)
    deadline = time.monotonic() + WITHIN_SECONDS
    while (started := _last(history, service, "started")) < began:
        assert time.monotonic() < deadline, world.logs()
        time.sleep(0.002)
    return started - began


def _last(history: Path, service: str, what: str) -> float:
    """When the node's history last says ``what`` of ``service``; 0 if never."""
    found = [json.loads(line) for line in history.read_bytes().splitlines()]
    return max((e["at"] for e in found if e["what"] == what and e["service"] == service), default=0.0)


def measure_supervisord(program: str, folder: Path, trials: int) -> list[float]:
    """Seconds from the kill of a program under supervisord until its replacement is there."""
    config = folder / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/supervisord.log\npidfile={folder}/supervisord.pid\n"
        "[program:sleep]\ncommand=sleep 1000\nautorestart=true\nstartsecs=0\n"
    )
    supervisor = subprocess.Popen(
        [program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    )
    taken = []
    try:
        child = _child_of(supervisor.pid, None)
        for _ in range(trials):
            time.sleep(1.5)
            began = time.time()
            os.kill(child, signal.SIGKILL)
            child = _child_of(supervisor.pid, child)
            taken.append(time.time() - began)
    finally:
        supervisor.terminate()
        supervisor.wait()
    return taken


def _child_of(parent: int, other_than: int | None) -> int:
    deadline = time.monotonic() + WITHIN_SECONDS
    while time.monotonic() < deadline:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        found = [int(pid) for pid in children if int(pid) != other_than]
        if found:
            return found[0]
        time.sleep(0.001)
    raise TimeoutError("supervisord started nothing")


def run(backend: str, trials: int, services: int, supervisord_trials: int) -> list[Figure]:
    figures = []
    victims = KINDS[backend]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = ConsulProcess(find_consul(), folder)
        server.start()
        try:
            place = folder / "citadel"
            place.mkdir()
            with World(server.address, place, "bench-death", dict(os.environ)) as world:
                seconds = measure(world, services, trials, victims)
                figures.append(summary(f"citadel, {services} services, {backend}", seconds))
            if (floor := victims.floor()) is not None:
                figures.append(summary(*floor))
        finally:
            server.end()
            victims.close()
        program = shutil.which("supervisord") or str(Path(sys.executable).with_name("supervisord"))
        if supervisord_trials and Path(program).exists():
            figures.append(summary("supervisord", measure_supervisord(program, folder, supervisord_trials)))
        else:
            print("supervisord is not installed, so it is not measured (pip install supervisor)", file=sys.stderr)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=KINDS, default="process", help="what the services are run by")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--services", type=int, default=12)
    parser.add_argument("--supervisord-trials", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    if options.backend == "systemd" and in_machine.is_needed():
        sys.exit(in_machine.run_there(__file__, sys.argv[1:]))
    figures = run(options.backend, options.trials, options.services, options.supervisord_trials)
    print_table("Death to exec of the replacement (milliseconds)", figures)
    if options.json is not None:
        options.json.write_text(json.dumps([figure.as_dict() for figure in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
