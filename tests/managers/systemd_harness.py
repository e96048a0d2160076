"""Real units for the contract, on a machine that runs systemd as PID 1.

The backend runs on the host and speaks to the machine's own bus. Units are instances of a few templates; what they do
and say lies below /run/contract there.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from backend_contract import NODE, STACK, until
from managed_machine import Machine

from citadel_consul.backends.base import Backend, Handle, Launch, Notice
from citadel_consul.backends.launches import Launches
from citadel_consul.backends.systemd.backend import SystemdBackend
from citadel_consul.core import model
from citadel_consul.core.model import Instance

_SERVICE = "[Service]\nStandardOutput=append:/run/contract/%i\nTimeoutStopSec=infinity\n"
_LOOP = "echo ready; while :; do sleep 0.05; done"
TEMPLATES = {
    # The trap for HUP makes sh take TERM as well only between two commands, hence the short sleeps.
    "steady": f"{_SERVICE}ExecStart=/bin/sh -c \"trap 'echo reloaded' HUP; {_LOOP}\"\n"
    "ExecReload=/bin/kill -HUP $MAINPID\n",
    "stubborn": f"{_SERVICE}ExecStart=/bin/sh -c \"trap '' TERM; {_LOOP}\"\n",
    "plain": f"{_SERVICE}ExecStart=/bin/sleep 1000\n",
    "failing": f"{_SERVICE}ExecStart=/bin/sh -c 'i=%i; exit $${{i##*-}}'\n",
}


class SystemdHarness:
    """See ``backend_contract.ManagedHarness``. ``notices`` are what the backends told."""

    def __init__(self, machine: Machine, state_dir: Path) -> None:
        self.machine = machine
        self.state_dir = state_dir
        self.token = uuid.uuid4().hex[:6]
        self.notices: list[str] = []

    @staticmethod
    def prepare(machine: Machine) -> None:
        """Give a machine the templates."""
        for name, text in TEMPLATES.items():
            machine.unit(f"{name}@.service", text)
        machine.daemon_reload()

    def backend(self) -> Backend:
        backend = SystemdBackend(self.state_dir, STACK, addresses={"system": self.machine.system_bus})
        backend.set_notice_sink(self._take)
        (self.machine.root / "run/contract").mkdir(exist_ok=True)
        return backend

    def steady(self, service: str, generation: int = 1) -> Launch:
        return self.template("steady", service, generation)

    def stubborn(self, service: str) -> Launch:
        return self.template("stubborn", service)

    def failing(self, service: str, status: int) -> Launch:
        return self.launch(service, f"failing@{self.token}-{service}-{status}.service")

    def impossible(self, service: str) -> Launch:
        return self.launch(service, f"nonesuch-{self.token}.service")

    def irreloadable(self, service: str) -> Launch:
        return self.template("plain", service)

    def template(self, template: str, service: str, generation: int = 1) -> Launch:
        """A launch of an instance of a template."""
        return self.launch(service, f"{template}@{self.token}-{service}.service", generation)

    def launch(self, service: str, unit: str, generation: int = 1, restarts: str = "citadel") -> Launch:
        """A launch of any unit."""
        spec = model.SystemdBackend(unit, restarts=restarts)
        return Launch(STACK, Instance(service, NODE), generation, spec, 1.0)

    def unit(self, text: str, name: str = "own") -> str:
        """Write a unit of the test's own; returns its name."""
        unit = f"{name}-{self.token}.service"
        (self.machine.root / "etc/systemd/system" / unit).write_text(text)
        self.machine.daemon_reload()
        return unit

    async def ready(self, launch: Launch) -> None:
        await until(lambda: "ready" in self.lines(launch))

    async def reloads(self, launch: Launch, count: int) -> None:
        await until(lambda: self.lines(launch).count("reloaded") == count)

    def lines(self, launch: Launch) -> list[str]:
        """What a unit of a template has written."""
        name = re.sub(r"^.*@|\.service$", "", unit_of(launch))
        path = self.machine.root / "run/contract" / name
        return path.read_text().splitlines() if path.exists() else []

    def kill(self, handle: Handle) -> None:
        self.machine.run(["kill", "-KILL", str(handle.pid)])

    def is_running(self, handle: Handle) -> bool:
        # Numbers of processes do not come round again within a test.
        try:
            stat = (self.machine.root / "proc" / str(handle.pid) / "stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] != "Z"

    def make_unproven(self, instance: Instance) -> None:
        Launches(self.state_dir, STACK, "systemd").path(instance).unlink()

    @asynccontextmanager
    async def absence(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self.machine.run, ["systemctl", "stop", "dbus.socket", "dbus.service"])
        try:
            yield
        finally:
            await asyncio.to_thread(self.machine.run, ["systemctl", "start", "dbus.socket", "dbus.service"])

    async def start_by_hand(self, launch: Launch) -> None:
        await asyncio.to_thread(self.machine.run, ["systemctl", "start", unit_of(launch)])

    def is_started(self, launch: Launch) -> bool:
        return self.machine.run(["systemctl", "is-active", "--quiet", unit_of(launch)], check=False).returncode == 0

    def clear(self) -> None:
        """End all that the test started."""
        self.machine.run(["systemctl", "kill", "--signal=KILL", f"*{self.token}*.service"], check=False)
        self.machine.run(["systemctl", "stop", f"*{self.token}*.service"], check=False)
        self.machine.run(["systemctl", "reset-failed"], check=False)

    def _take(self, notice: Notice) -> None:
        self.notices.append(f"{notice.instance}: {notice.message}")


def unit_of(launch: Launch) -> str:
    """The unit that a launch names."""
    assert isinstance(launch.backend, model.SystemdBackend)
    return launch.backend.unit
