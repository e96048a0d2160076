"""Real processes for the tests of the process backend, and an agent in a process of its own that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from backend_contract import LONG, NODE, STACK, until

from citadel_consul.backends import family, procfs
from citadel_consul.backends.base import Backend, Handle, Launch
from citadel_consul.backends.journal import Journal
from citadel_consul.backends.logs import log_path, tail
from citadel_consul.backends.process import ProcessBackend
from citadel_consul.core import model
from citadel_consul.core.model import Instance

_HOST = Path(__file__).with_name("agent_host.py")

STEADY = "trap 'echo reloaded' HUP; echo ready; while :; do sleep 0.05; done"
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


@dataclass(frozen=True)
class ProcessHarness:
    """See ``backend_contract.Harness``."""

    state_dir: Path

    def backend(self, tend_seconds: float = 1.0) -> Backend:
        return ProcessBackend(self.state_dir, STACK, tend_seconds=tend_seconds)

    def steady(self, service: str, generation: int = 1) -> Launch:
        # The trap for HUP makes sh take TERM as well only between two commands, hence the short sleeps.
        return self.shell(service, STEADY, generation)

    def stubborn(self, service: str) -> Launch:
        return self.shell(service, STUBBORN)

    def failing(self, service: str, status: int) -> Launch:
        return self.shell(service, f"exit {status}")

    def impossible(self, service: str) -> Launch:
        return self.launch(service, "nonesuch-program")

    def irreloadable(self, service: str) -> Launch:
        return self.launch(service, "sleep", "1000")

    def shell(self, service: str, script: str, generation: int = 1) -> Launch:
        """A launch of a shell script."""
        return self.launch(service, "/bin/sh", "-c", script, generation=generation, reload_signal="SIGHUP")

    def python(self, service: str, script: str) -> Launch:
        """A launch of a Python program that imports nothing of the site."""
        return self.launch(service, sys.executable, "-IS", "-c", script)

    def launch(
        self,
        service: str,
        *command: str,
        generation: int = 1,
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        stop_signal: str = "SIGTERM",
        reload_signal: str | None = None,
        log_bytes: int = 10 * 1024 * 1024,
        log_files: int = 3,
    ) -> Launch:
        """A launch of any command."""
        # A service has a clean environment: hand it what the suite finds left-over processes by.
        marked = {name: value for name, value in os.environ.items() if name == "CITADEL_TEST_RUN"}
        spec = model.ProcessBackend(
            command,
            env=marked | (env or {}),
            cwd=cwd,
            user=user,
            stop_signal=stop_signal,
            reload_signal=reload_signal,
            log_bytes=log_bytes,
            log_files=log_files,
        )
        return Launch(STACK, Instance(service, NODE), generation, spec, 1.0)

    async def ready(self, launch: Launch) -> None:
        await self.output(launch, "ready")

    async def reloads(self, launch: Launch, count: int) -> None:
        await until(lambda: self.lines(launch).count("reloaded") == count)

    async def output(self, launch: Launch, line: str) -> None:
        """Wait until the service has written this line."""
        await until(lambda: line in self.lines(launch))

    def lines(self, launch: Launch) -> list[str]:
        """All that the service has written since the last rotation."""
        return tail(self.log(launch), 1_000_000)

    def log(self, launch: Launch) -> Path:
        """Its log file."""
        return log_path(self.state_dir, STACK, launch.instance.node, launch.instance.service)

    def kill(self, handle: Handle) -> None:
        os.kill(handle.pid or 0, signal.SIGKILL)

    def is_running(self, handle: Handle) -> bool:
        return is_running(handle.pid or 0)

    def make_unproven(self, instance: Instance) -> None:
        Journal(self.state_dir, STACK).path(instance).unlink()

    def marked(self, service: str) -> list[int]:
        """The processes that bear the marker of any launch of this service."""
        place = Journal(self.state_dir, STACK).place(Instance(service, NODE))
        return [process.pid for process in family.by_place(family.look()).get(place, [])]

    def all_marked(self) -> list[int]:
        """The processes that bear a marker of any service of this machine."""
        journal = Journal(self.state_dir, STACK)
        places = {journal.place(instance) for instance in journal.instances()}
        found = family.by_place(family.look())
        return [process.pid for place in places for process in found.get(place, [])]

    def record(self, instance: Instance) -> dict[str, object]:
        """The record of an instance as it is on disk."""
        value = json.loads(Journal(self.state_dir, STACK).path(instance).read_bytes())
        assert isinstance(value, dict)
        return value

    def edit_record(self, instance: Instance, **changes: object) -> None:
        """Change the record of an instance behind the backend's back."""
        path = Journal(self.state_dir, STACK).path(instance)
        path.write_text(json.dumps(self.record(instance) | changes))

    def killed_agent(self, service: str, moment: str, script: str = STEADY) -> list[int]:
        """Start a service under an agent that SIGKILLs itself at a moment of the start (see ``agent_host.py``).

        Returns the processes of the service that are there afterwards.
        """
        arguments = [str(_HOST), str(self.state_dir), service, moment, script]
        host = subprocess.run([sys.executable, *arguments], timeout=LONG, check=False)
        assert host.returncode == -signal.SIGKILL
        return self.marked(service)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    process = procfs.read(pid)
    return process is not None and not process.ended


def descriptors() -> set[str]:
    """What the descriptors of this process are open on."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{entry.name} {entry.readlink()}")
        except FileNotFoundError:  # the descriptor of this very listing
            continue
    return found
