"""What the lab needs on the host, and how it gets there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .command import find_program, run
from .errors import LabError

Report = Callable[[str], None]

# Program -> Debian's package. iptables is dockerd's; the minimal docker.io does not always bring it.
COMMON = {"vagrant": "vagrant", "ssh": "openssh-client", "ssh-keygen": "openssh-client"}
DOCKER = {"docker": "docker.io", "dockerd": "docker.io", "iptables": "iptables", "mmdebstrap": "mmdebstrap"}
HYPERVISOR = {"rsync": "rsync"}
HYPERVISOR_HINTS = {
    "virtualbox": ("VBoxManage", "VirtualBox: https://www.virtualbox.org/wiki/Linux_Downloads"),
    "libvirt": ("virsh", "libvirt with QEMU, and the plugin: vagrant plugin install vagrant-libvirt"),
}


def missing_packages(provider: str, find: Callable[[str], str | None] = find_program) -> list[str]:
    """Debian's packages that the provider needs and whose programs are not here."""
    needed = {**COMMON, **(DOCKER if provider == "docker" else HYPERVISOR)}
    return sorted({package for program, package in needed.items() if find(program) is None})


def ensure_host(provider: str, report: Report) -> None:
    """Install what is missing (Debian and Ubuntu, as root). Raises LabError naming it where that cannot be done."""
    if provider in HYPERVISOR_HINTS:
        program, hint = HYPERVISOR_HINTS[provider]
        if find_program(program) is None:
            raise LabError(f"{program} is not installed; install {hint}, or use --provider docker")
    missing = missing_packages(provider)
    if not missing:
        return
    if find_program("apt-get") is None or os.geteuid() != 0:
        raise LabError(f"missing on this machine: {', '.join(missing)}. {_advice(missing)}")
    report(f"installing {', '.join(missing)}")
    run(["apt-get", "update", "-q"])
    options = ["install", "-q", "-y", "--no-install-recommends"]
    run(["apt-get", *options, *missing], env={"DEBIAN_FRONTEND": "noninteractive"})
    still = missing_packages(provider)
    if still:
        raise LabError(f"installed, and yet not found: {', '.join(still)}")


def project_python(root: Path) -> str:
    """The interpreter that builds the wheels: the project's environment if it is set up, else the machine's."""
    own = root / ".venv" / "bin" / "python"
    python = str(own) if own.exists() else "python3"
    if run([python, "-m", "pip", "--version"], check=False).returncode != 0:
        raise LabError(f"{python} has no pip, which builds the wheels for the nodes. Run ./bin/setup, or install pip")
    return python


def _advice(missing: list[str]) -> str:
    if find_program("apt-get") is not None:
        return f"As root: apt-get install --no-install-recommends {' '.join(missing)}"
    return "The names are Debian's; install what gives the same programs here"
