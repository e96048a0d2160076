"""Runs a measurement on a machine with systemd as PID 1, in a container that is booted for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "managers"))

from machine_image import CHECKOUT, ROOT, NoImage, ensure_image, ensure_wheels
from managed_machine import PYTHON, Machine, MachineError, Network, NoMachine

from citadel_consul.consul.binary import find_consul

__all__ = ["MachineError", "NoImage", "NoMachine", "is_needed", "run_there"]


def is_needed() -> bool:
    """Whether this machine is run by something else than systemd."""
    return not Path("/run/systemd/system").is_dir()


def run_there(program: str, arguments: list[str], *, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a program of the checkout on a machine of its own; its output is shown, or captured.

    Raises NoImage, NoMachine or MachineError if there can be no such machine here.
    """
    network = Network()
    network.make()
    try:
        machine = Machine.boot(ensure_image(), network, find_consul().path, ensure_wheels())
        try:
            path = f"{CHECKOUT}/{Path(program).resolve().relative_to(ROOT)}"
            words = ["docker", "exec", machine.container, PYTHON, path, *arguments]
            return subprocess.run(words, check=False, capture_output=capture, text=True)
        finally:
            machine.remove()
    finally:
        network.remove()
