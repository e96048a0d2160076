"""A graph under systemd, as PID 1 of a container: Type=notify, Requires= and After= for each edge, one target for all.

The very same program runs, and tells systemd when it is ready. `systemctl start` returns when the target is active,
which is after all services are. Everything is in one slice, and `systemctl stop` of that returns when all are
gone: a job for each unit by name would be a transaction for each, which takes systemd several times as long.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "managers"))

from cycle import Cycle, started, stopped
from figures import NotMeasured
from machine_image import NoImage, ensure_image, ensure_wheels
from managed_machine import Machine, MachineError, Network, NoMachine
from timed_service import TimedServices

from citadel_consul.consul.binary import find_consul

INSIDE = Path("/opt/bench")
"""Where the machine sees the folder of the services."""
PYTHON = ("/usr/bin/python3", "-I", "-S")
TARGET, SLICE = "bench.target", "bench.slice"
TIMED = 'date +%s.%N; systemctl "$@"; status=$?; date +%s.%N; exit $status'
WITHIN_SECONDS = 240.0


@contextmanager
def under_systemd(services: TimedServices) -> Iterator[Callable[[], Cycle]]:
    """Boot a machine with a unit for each service; what is yielded starts and stops everything once."""
    network = Network()
    try:
        image, wheels = ensure_image(), ensure_wheels()
        network.make()
        try:
            volume = f"--volume={services.folder}:{INSIDE}:rw"
            machine = Machine.boot(image, network, find_consul().path, wheels, volume)
            try:
                _write_units(services, machine.root / "run" / "systemd" / "system")
                machine.daemon_reload()
                yield lambda: _cycle(services, machine)
            finally:
                machine.remove()
        finally:
            network.remove()
    except (NoImage, NoMachine, MachineError, FileNotFoundError) as error:
        raise NotMeasured(f"no systemd can be run here: {error}") from error


def _write_units(services: TimedServices, folder: Path) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    units = {name: f"bench-{name}.service" for name in services.graph.services}
    for name, unit in units.items():
        needs = " ".join(units[needed] for needed in services.graph.needs(name))
        command = " ".join(services.command(name, INSIDE, PYTHON))
        (folder / unit).write_text(
            f"[Unit]\nDefaultDependencies=no\nRequires={needs}\nAfter={needs}\nStartLimitIntervalSec=0\n"
            f"[Service]\nSlice={SLICE}\nType=notify\nExecStart={command}\n"
        )
    everything = " ".join(units.values())
    (folder / TARGET).write_text(f"[Unit]\nDefaultDependencies=no\nWants={everything}\nAfter={everything}\n")


def _cycle(services: TimedServices, machine: Machine) -> Cycle:
    services.clear()
    requested, told = _timed(machine, "start", TARGET)
    start = started(services.graph, services.until(lambda life: life.listening), requested, told)
    requested, told = _timed(machine, "stop", SLICE)
    return Cycle(start, stopped(services.graph, services.until(lambda life: life.exited), requested, told))


def _timed(machine: Machine, *words: str) -> tuple[float, float]:
    """When systemctl was about to be called, and when it returned."""
    done = machine.run(["sh", "-c", TIMED, "sh", *words], timeout_seconds=WITHIN_SECONDS)
    before, after = done.stdout.split()
    return float(before), float(after)
