"""Services behind commands (``service_control.sh``), for the tests of the command backend."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from backend_contract import NODE, STACK, until
from process_harness import STEADY, STUBBORN, is_running

from citadel_consul.backends.base import Backend, Handle, Launch
from citadel_consul.backends.command import CommandBackend
from citadel_consul.backends.launches import Launches
from citadel_consul.core import model
from citadel_consul.core.model import Instance

_CONTROL = Path(__file__).with_name("service_control.sh")


@dataclass
class CommandHarness:
    """See ``backend_contract.Harness``."""

    state_dir: Path
    poll_seconds: float = 0.2
    timeout_seconds: float = 20.0
    least_stop_seconds: float = 0.0

    def backend(self) -> Backend:
        return CommandBackend(self.state_dir, STACK, least_stop_seconds=self.least_stop_seconds)

    def steady(self, service: str, generation: int = 1) -> Launch:
        return self.shell(service, STEADY, generation)

    def stubborn(self, service: str) -> Launch:
        return self.shell(service, STUBBORN)

    def failing(self, service: str, status: int) -> Launch:
        # Long enough to be seen running: what never runs was not started.
        return self.shell(service, f"echo ready; sleep 0.5; exit {status}")

    def impossible(self, service: str) -> Launch:
        launch = self.steady(service)
        return replace(launch, backend=replace(spec_of(launch), start=("nonesuch-program",)))

    def irreloadable(self, service: str) -> Launch:
        launch = self.steady(service)
        return replace(launch, backend=replace(spec_of(launch), reload=None))

    def shell(self, service: str, script: str, generation: int = 1) -> Launch:
        """A launch of a shell script."""
        folder = self.folder(service)
        folder.mkdir(parents=True, exist_ok=True)
        words = ("/bin/sh", str(_CONTROL), str(folder))
        # Commands have a clean environment: hand them what the suite finds left-over processes by.
        marked = {name: value for name, value in os.environ.items() if name == "CITADEL_TEST_RUN"}
        spec = model.CommandBackend(
            start=(*words, "start", script),
            stop=(*words, "stop"),
            status=(*words, "status"),
            reload=(*words, "reload"),
            env=marked,
            poll_seconds=self.poll_seconds,
            timeout_seconds=self.timeout_seconds,
        )
        return Launch(STACK, Instance(service, NODE), generation, spec, 1.0)

    def folder(self, service: str) -> Path:
        """Where a service keeps its state, and where files make it misbehave."""
        return self.state_dir / "services" / service

    async def ready(self, launch: Launch) -> None:
        await until(lambda: "ready" in self.lines(launch.instance.service))

    async def reloads(self, launch: Launch, count: int) -> None:
        await until(lambda: self.lines(launch.instance.service).count("reloaded") == count)

    def lines(self, service: str) -> list[str]:
        """What a service has written."""
        return _lines(self.folder(service) / "output")

    def calls(self, service: str, what: str) -> int:
        """How often a command was called."""
        return _lines(self.folder(service) / "calls").count(what)

    def pid(self, service: str) -> int:
        """The main process of a service; 0 if it never ran."""
        try:
            return int((self.folder(service) / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def kill(self, handle: Handle) -> None:
        os.kill(self.pid(handle.unit or ""), signal.SIGKILL)

    def is_running(self, handle: Handle) -> bool:
        pid = self.pid(handle.unit or "")
        return pid != 0 and is_running(pid)

    def make_unproven(self, instance: Instance) -> None:
        Launches(self.state_dir, STACK, "command").path(instance).unlink()

    @asynccontextmanager
    async def absence(self) -> AsyncIterator[None]:
        flag = self.state_dir / "services" / "no-status"
        flag.touch()
        try:
            yield
        finally:
            flag.unlink()

    async def start_by_hand(self, launch: Launch) -> None:
        await asyncio.to_thread(subprocess.run, spec_of(launch).start, check=True)

    def is_started(self, launch: Launch) -> bool:
        return is_running(self.pid(launch.instance.service))

    def clear(self) -> None:
        """Kill whatever still runs."""
        for folder in (self.state_dir / "services").glob("*"):
            pid = self.pid(folder.name)
            if pid and is_running(pid):  # it may not have made its group yet
                os.kill(pid, signal.SIGKILL)
            if pid:  # what a killed main process left is still in it
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)


def spec_of(launch: Launch) -> model.CommandBackend:
    """The commands of a launch."""
    assert isinstance(launch.backend, model.CommandBackend)
    return launch.backend


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []
