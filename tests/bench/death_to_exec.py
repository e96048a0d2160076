"""How long a killed service is gone: from SIGKILL to the exec of its replacement, through the leader.

    bin/bench --only death
    .venv/bin/python tests/bench/death_to_exec.py --backend docker [--trials 100] [--services 12]

The road is the whole one: the node agent sees the exit, reports it to Consul, the leader's watch wakes, it decides,
writes the order under its fence, and the agent's watch wakes and starts the process. The clock runs from just before
the kill until the agent's own history says 'started', which it writes after exec has succeeded (of a unit: after
systemd says that it runs). supervisord is measured by `bin/bench` in the same run with autorestart, from the kill
until its new child is there. Where no systemd runs, `--backend systemd` boots one in a container and measures there.
With `--json -` there is nothing but JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import os
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
from figures import Figure, NotMeasured, figures_table, summary
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


def measure_supervisord(program: Path, folder: Path, trials: int) -> list[float]:
    """Seconds from the kill of a program under supervisord until its replacement is there."""
    config = folder / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/supervisord.log\npidfile={folder}/supervisord.pid\n"
        "[program:sleep]\ncommand=sleep 1000\nautorestart=true\nstartsecs=0\n"
    )
    supervisor = subprocess.Popen(
        [str(program), "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
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


def measure_deaths(consul: str, folder: Path, backend: str, services: int, trials: int) -> list[Figure]:
    """The figure of citadel with one kind of backend, and that of the manager behind it where it restarts by itself."""
    victims = KINDS[backend]()
    try:
        (place := folder / f"death-{backend}").mkdir()
        with World(consul, place, "bench-death", dict(os.environ)) as world:
            seconds = measure(world, services, trials, victims)
        figures = [summary(f"citadel, {services} services, {backend}", seconds)]
        if (floor := victims.floor()) is not None:
            figures.append(summary(*floor))
    finally:
        victims.close()
    return figures


def measure_systemd(services: int, trials: int) -> list[Figure]:
    """The figures of units of systemd, in a machine that is booted for it if this one is not run by systemd."""
    if not in_machine.is_needed():
        return run("systemd", trials, services)
    arguments = ["--backend", "systemd", "--services", str(services), "--trials", str(trials), "--json", "-"]
    try:
        done = in_machine.run_there(__file__, arguments, capture=True)
    except (in_machine.NoImage, in_machine.NoMachine, in_machine.MachineError, OSError) as error:
        raise NotMeasured(f"no systemd can be run here: {error}") from error
    if done.returncode:
        raise NotMeasured(f"the measurement in a machine with systemd failed: {done.stderr.strip()[-500:]}")
    return [Figure(**figure) for figure in json.loads(done.stdout)]


def run(backend: str, trials: int, services: int) -> list[Figure]:
    """The same on a Consul of its own."""
    with tempfile.TemporaryDirectory() as name:
        server = ConsulProcess(find_consul(), Path(name))
        server.start()
        try:
            return measure_deaths(server.address, Path(name), backend, services, trials)
        finally:
            server.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=KINDS, default="process", help="what the services are run by")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--services", type=int, default=12)
    parser.add_argument("--json", metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    if options.backend == "systemd" and in_machine.is_needed():
        sys.exit(in_machine.run_there(__file__, sys.argv[1:]).returncode)
    figures = run(options.backend, options.trials, options.services)
    text = json.dumps([figure.as_dict() for figure in figures], indent=2) + "\n"
    if options.json == "-":
        print(text)
        return
    print(figures_table(figures))
    if options.json is not None:
        Path(options.json).write_text(text)


if __name__ == "__main__":
    main()
