"""The services that are killed in a measurement, by the kind of their backend: how they are made and killed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("managers", "system")]

from docker_engine import Containers, client
from real_world import World

from citadel_consul.core.model import DockerBackend, ProcessBackend, RecoveryPolicy, ServiceSpec, SystemdBackend

STEADY = "trap 'exit 143' TERM; while :; do sleep 1000 & wait $!; done"
TRIALS_ALONE = 30


class Victims(Protocol):
    """Services of one kind of backend. ``floor`` is how long the manager takes by itself, if that can be measured."""

    def spec(self, world: World, name: str, policy: RecoveryPolicy, /) -> ServiceSpec: ...

    def kill(self, world: World, name: str, /) -> None: ...

    def floor(self) -> tuple[str, list[float]] | None: ...

    def close(self) -> None: ...


class Processes:
    """Programs that the node agent runs itself."""

    def spec(self, world: World, name: str, policy: RecoveryPolicy) -> ServiceSpec:
        return world.tiny(name, recovery=policy)

    def kill(self, world: World, name: str) -> None:
        os.kill(world.lives(name)[-1], signal.SIGKILL)

    def floor(self) -> None:
        return None

    def close(self) -> None:
        """Nothing is left."""


class DockerContainers:
    """Containers without a network, of one static program. Killed is their main process, not by way of the engine."""

    def __init__(self) -> None:
        self._engine = client()
        self._containers = Containers(self._engine, f"bench{os.getpid()}")

    def spec(self, _: World, name: str, policy: RecoveryPolicy) -> ServiceSpec:
        container = self._make(name)
        return ServiceSpec(name, "test", ("n1",), DockerBackend(container=container), recovery=policy)

    def kill(self, _: World, name: str) -> None:
        os.kill(self._pid(self._name(name)), signal.SIGKILL)

    def floor(self) -> tuple[str, list[float]]:
        """Seconds from a kill until the engine tells of it, and has started the container again when told to."""
        name = self._make("alone")
        self._containers.start(name)
        taken = [self._kill_and_start(self._name("alone")) for _ in range(TRIALS_ALONE)]
        return "the Docker engine alone (death told, start done)", taken

    def _kill_and_start(self, container: str) -> float:
        time.sleep(0.3)
        with client() as other, other.stream("GET", "/events", params=_deaths_of(container), timeout=60.0) as events:
            pid = self._pid(container)
            began = time.time()
            os.kill(pid, signal.SIGKILL)
            next(events.iter_lines())
        self._containers.start(container)
        return time.time() - began

    def close(self) -> None:
        self._containers.clear()
        self._engine.close()

    def _make(self, name: str) -> str:
        self._containers.create(self._name(name), "/bin/sh", "-c", STEADY)
        return self._name(name)

    def _name(self, name: str) -> str:
        return f"citadel-{self._containers.run}-{name}"

    def _pid(self, container: str) -> int:
        pid = self._containers.state(container)["Pid"]
        assert isinstance(pid, int)
        assert pid > 0
        return pid


class Units:
    """Units of the systemd that runs this very machine (see ``in_machine``), of the same program as the processes."""

    def __init__(self) -> None:
        self._folder = Path("/run/systemd/system")
        self._units: list[str] = []

    def spec(self, world: World, name: str, policy: RecoveryPolicy) -> ServiceSpec:
        tiny = world.tiny(name, recovery=policy)
        assert isinstance(tiny.backend, ProcessBackend)
        return replace(tiny, backend=SystemdBackend(self._make(name, shlex.join(tiny.backend.command))))

    def kill(self, world: World, name: str) -> None:
        os.kill(world.lives(name)[-1], signal.SIGKILL)

    def floor(self) -> tuple[str, list[float]]:
        """Seconds from a kill until systemd has restarted a unit by itself, after its default pause of 100 ms."""
        unit = self._make("alone", "/bin/sleep 1000", "Restart=always\nRestartSec=100ms\nStartLimitBurst=1000\n")
        _systemctl("start", unit)
        return "systemd alone (Restart=always, RestartSec=100ms)", [self._kill_alone(unit) for _ in range(TRIALS_ALONE)]

    def _kill_alone(self, unit: str) -> float:
        pid = _systemctl("show", "--value", "--property=MainPID", unit)
        tasks = Path(_systemctl("show", "--value", "--property=ControlGroup", unit).lstrip("/"))
        processes = next(root / tasks / "cgroup.procs" for root in _CGROUPS if (root / tasks / "cgroup.procs").exists())
        time.sleep(0.3)
        began = time.time()
        os.kill(int(pid), signal.SIGKILL)
        while not _other_than(pid, processes):
            time.sleep(0.0005)
        return time.time() - began

    def close(self) -> None:
        _systemctl("stop", *self._units)
        for unit in self._units:
            (self._folder / unit).unlink()
        _systemctl("daemon-reload")

    def _make(self, name: str, command: str, more: str = "") -> str:
        unit = f"citadel-bench-{name}.service"
        (self._folder / unit).write_text(f"[Service]\nExecStart={command}\n{more}")
        _systemctl("daemon-reload")
        self._units.append(unit)
        return unit


_CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified"))


def _other_than(pid: str, processes: Path) -> bool:
    try:
        return bool(set(processes.read_text().split()) - {pid})
    except OSError:  # between two lives a unit has no control group
        return False


def _systemctl(*words: str) -> str:
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=True).stdout.strip()


def _deaths_of(container: str) -> dict[str, str]:
    return {"filters": json.dumps({"type": ["container"], "event": ["die"], "container": [container]})}


KINDS: dict[str, Callable[[], Victims]] = {"process": Processes, "docker": DockerContainers, "systemd": Units}
