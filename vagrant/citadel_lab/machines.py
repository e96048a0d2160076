"""The machines behind the nodes: one interface, containers or virtual machines behind it.

Vagrant makes and destroys them. What a fault test needs to be quick and exact (pause, pull the plug, run a command)
goes straight to the Docker engine for containers, and through ssh or Vagrant for virtual machines.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from . import layout
from .command import run
from .engine import engine_answers
from .errors import LabError
from .topology import Node, Topology
from .vagrant import machine_id, machine_states, vagrant

RUNNING = "running"
PAUSED = "paused"
STOPPED = "stopped"
ABSENT = "absent"
EXEC_SECONDS = 120.0


class Machines(Protocol):
    """What can be done to the machine of a node. Errors are LabError."""

    def states(self) -> dict[str, str]:
        """Node name -> ``running``, ``paused``, ``stopped`` or ``absent``."""
        ...

    def execute(self, node: Node, words: Sequence[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command as root in the node."""
        ...

    def cut_power(self, node: Node) -> None:
        """End the machine at once: nothing in it gets a chance to say goodbye."""
        ...

    def start(self, node: Node) -> None:
        """Boot a machine that is stopped."""
        ...

    def pause(self, node: Node) -> None:
        """Freeze the whole machine; for the others it is silent, not dead."""
        ...

    def resume(self, node: Node) -> None:
        """Let a frozen machine go on, at the instruction where it stood."""
        ...

    def reboot(self, node: Node) -> None:
        """Shut down in order and boot again; returns once the machine takes commands."""
        ...


def machines_of(topology: Topology) -> Machines:
    """The machines of the lab's provider."""
    return Containers(topology) if topology.provider == "docker" else VirtualMachines(topology)


def ssh_command(topology: Topology, node: Node) -> list[str]:
    """The ssh command line that logs in to the node; it needs neither Vagrant nor a known host."""
    key = layout.KEY
    if topology.provider != "docker":
        key = layout.MACHINES / node.name / topology.provider / "private_key"
    options = {
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
        "ConnectTimeout": "5",
        "IdentitiesOnly": "yes",
    }
    words = ["ssh", "-i", str(key)]
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    return [*words, f"vagrant@{node.address}"]


class Containers:
    """Nodes as containers with systemd as PID 1, addressed by the ids that Vagrant noted."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    def states(self) -> dict[str, str]:
        ids = {node.name: machine_id(node.name, "docker") for node in self._topology.nodes}
        known = [container for container in ids.values() if container]
        words = {"running": RUNNING, "restarting": RUNNING, "paused": PAUSED}
        found: dict[str, str] = {}
        if known:
            form = "{{.Id}} {{.State.Status}}"
            # Fails if one of them is gone, and still prints the others.
            output = run(["docker", "container", "inspect", "--format", form, *known], check=False).stdout
            found = dict(line.split() for line in output.splitlines() if line.strip())
        if known and not found and not engine_answers():
            raise LabError("no Docker engine answers, so the nodes do not run: bin/lab up starts both")
        return {
            name: words.get(found[container], STOPPED) if container and container in found else ABSENT
            for name, container in ids.items()
        }

    def execute(self, node: Node, words: Sequence[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(["docker", "exec", self._id(node), *words], check=check, timeout_seconds=EXEC_SECONDS)

    def cut_power(self, node: Node) -> None:
        run(["docker", "kill", self._id(node)])

    def start(self, node: Node) -> None:
        run(["docker", "start", self._id(node)])
        self._wait(node)

    def pause(self, node: Node) -> None:
        run(["docker", "pause", self._id(node)])

    def resume(self, node: Node) -> None:
        run(["docker", "unpause", self._id(node)])

    def reboot(self, node: Node) -> None:
        run(["docker", "restart", "--time", "60", self._id(node)])
        self._wait(node)

    def _id(self, node: Node) -> str:
        container = machine_id(node.name, "docker")
        if container is None:
            raise LabError(f"{node.name} is not there: bin/lab up makes it")
        return container

    def _wait(self, node: Node) -> None:
        wait_for_systemd(self, node)


class VirtualMachines:
    """Nodes as virtual machines of VirtualBox or libvirt."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    def states(self) -> dict[str, str]:
        words = {"running": RUNNING, "paused": PAUSED, "saved": PAUSED, "not_created": ABSENT}
        seen = machine_states()
        return {node.name: words.get(seen.get(node.name, "not_created"), STOPPED) for node in self._topology.nodes}

    def execute(self, node: Node, words: Sequence[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [*ssh_command(self._topology, node), "--", "sudo", shlex.join(words)]
        return run(command, check=check, timeout_seconds=EXEC_SECONDS)

    def cut_power(self, node: Node) -> None:
        vagrant(["halt", "--force", node.name])

    def start(self, node: Node) -> None:
        vagrant(["up", "--no-provision", node.name])

    def pause(self, node: Node) -> None:
        vagrant(["suspend", node.name])

    def resume(self, node: Node) -> None:
        vagrant(["resume", "--no-provision", node.name])

    def reboot(self, node: Node) -> None:
        vagrant(["reload", "--no-provision", node.name])


def wait_for_systemd(machines: Machines, node: Node, attempts: int = 60) -> None:
    """Return once the node's systemd has finished booting, well or not. Raises LabError if it never does."""
    for _ in range(attempts):
        # --wait blocks until the boot is over; before its bus is there the command fails at once.
        done = machines.execute(node, ["sh", "-c", "systemctl is-system-running --wait || sleep 0.2"], check=False)
        if done.stdout.strip() in ("running", "degraded"):
            return
    raise LabError(f"{node.name} does not finish booting: {done.stdout.strip() or done.stderr.strip()}")


def noted_machines() -> list[Path]:
    """The notes that Vagrant keeps of machines that exist, whatever their provider."""
    return sorted(layout.MACHINES.glob("*/*/id"))
