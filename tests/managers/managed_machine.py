"""A machine with systemd as PID 1, in a container: booted, looked at, rebooted.

The checkout is at CHECKOUT, an environment that can run it at ENVIRONMENT (see ``machine_image``), Consul at
``/usr/local/bin/consul``. Nothing of the host can be written from within.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from machine_image import CHECKOUT, ENVIRONMENT, ROOT, WHEELS

# What systemd as PID 1 needs of a container; it is not privileged.
_OPTIONS = (
    *("--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--security-opt=seccomp=unconfined"),
    *("--security-opt=apparmor=unconfined", "--tmpfs=/run:exec", "--tmpfs=/tmp:exec", "--stop-signal=SIGRTMIN+3"),
    "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
)
BOOT_SECONDS = 120.0
PYTHON = f"{ENVIRONMENT}/bin/python"
CITADEL = f"{ENVIRONMENT}/bin/citadel"

_CONSUL_UNIT = """
[Unit]
Description=Consul
[Service]
ExecStart=/usr/local/bin/consul agent -server -bootstrap-expect=1 -ui -node={node} -bind={address} -client=0.0.0.0 \
    -data-dir=/var/lib/consul -config-dir=/etc/consul.d
KillSignal=SIGINT
Restart=on-failure
[Install]
WantedBy=multi-user.target
"""
_CONSUL_CONFIG = {
    "performance": {"raft_multiplier": 1},
    "enable_local_script_checks": True,
    "leave_on_terminate": False,
    "limits": {"http_max_conns_per_client": 1000},
    "disable_update_check": True,
}


_LABEL = "citadel-managers-owner"


class NoMachine(Exception):
    """No machine can run here; the text says why."""


class MachineError(Exception):
    """A command on a machine failed; the text is what it said."""


@dataclass(frozen=True)
class Network:
    """A bridge network of the test run's own."""

    name: str = field(default_factory=lambda: f"citadel-managers-{uuid.uuid4().hex[:8]}")

    def make(self) -> None:
        _docker("network", "create", "--driver=bridge", f"--label={_LABEL}={_owner()}", self.name)

    def remove(self) -> None:
        _docker("network", "rm", self.name, check=False)


class Machine:
    """One machine. ``address`` is its own on the bridge network, reachable from the host and from the others."""

    def __init__(self, container: str, name: str) -> None:
        self.container = container
        self.name = name
        self.address = ""
        self.pid = 0
        self._read()

    @classmethod
    def boot(cls, image: str, network: Network, consul: Path, wheels: Path, *options: str) -> Machine:
        """Start one and wait until it is up. Raises NoMachine if this kernel or engine does not let it."""
        name = f"m-{uuid.uuid4().hex[:8]}"
        volumes = (f"{ROOT}:{CHECKOUT}:ro", f"{wheels}:{WHEELS}:ro", f"{consul}:/usr/local/bin/consul:ro")
        words = (
            *("run", "--detach", "--pull=never", f"--name={name}", f"--hostname={name}", f"--network={network.name}"),
            f"--label={_LABEL}={_owner()}",
            *(f"--volume={volume}" for volume in volumes),
            *_OPTIONS,
            *options,
        )
        machine = cls(_docker(*words, image, "/sbin/init").stdout.strip(), name)
        try:
            machine.until_up()
        except BaseException:
            machine.remove()
            raise
        return machine

    # What it can do.

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        text_in: str | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout_seconds: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. Raises MachineError if it fails, unless ``check`` is off."""
        variables = [f"--env={name}={value}" for name, value in (env or {}).items()]
        interactive = ["--interactive"] if text_in is not None else []
        words = ["exec", f"--user={user}", *variables, *interactive, self.container, *argv]
        return _docker(*words, text_in=text_in, check=check, timeout_seconds=timeout_seconds)

    def output(self, *argv: str) -> str:
        """What a command prints, without the last line break."""
        return self.run(argv).stdout.removesuffix("\n")

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Put a file there, with its folders."""
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
        self.run(["sh", "-c", script, "sh", path, mode], text_in=text)

    def read(self, path: str) -> str:
        """The text of a file."""
        return self.run(["cat", path]).stdout

    def copy(self, source: Path, target: str) -> None:
        """Copy a file or a folder of the host's to there; not below /run or /tmp, which are no part of the image."""
        _docker("cp", str(source), f"{self.container}:{target}")

    def unit(self, name: str, text: str) -> None:
        """Write a unit file; ``daemon_reload`` makes it known."""
        self.write(f"/etc/systemd/system/{name}", text)

    def daemon_reload(self) -> None:
        """Have systemd read the unit files again."""
        self.run(["systemctl", "daemon-reload"])

    def shown(self, unit: str, name: str) -> str:
        """A property of a unit, as systemctl shows it."""
        return self.output("systemctl", "show", "--value", f"--property={name}", unit)

    def reboot(self) -> None:
        """Shut down, boot, and wait until it is up. What is on disk stays; /run and /tmp are empty again."""
        _docker("stop", "--time=60", self.container, timeout_seconds=120.0)
        _docker("start", self.container)
        self._read()
        self.until_up()

    def start_consul(self) -> str:
        """Run a Consul server of its own that keeps its data over a reboot; returns its HTTP address."""
        self.write("/etc/consul.d/consul.json", json.dumps(_CONSUL_CONFIG))
        self.unit("consul.service", _CONSUL_UNIT.format(node=self.name, address=self.address))
        self.daemon_reload()
        self.run(["systemctl", "enable", "--now", "consul.service"])
        leader = ["curl", "-sf", "http://127.0.0.1:8500/v1/status/leader"]
        self.until(lambda: ":" in self.run(leader, check=False).stdout, "Consul has a leader")
        return f"http://{self.address}:8500"

    # Waiting and looking.

    def until(self, condition: Callable[[], bool], what: str, within_seconds: float = 60.0) -> None:
        """Wait for something; fails with the end of the machine's journal."""
        deadline = time.monotonic() + within_seconds
        while not condition():
            if time.monotonic() > deadline:
                raise MachineError(f"not within {within_seconds:g} s: {what}\n{self.journal()}")
            time.sleep(0.05)

    def until_up(self) -> None:
        """Wait for the end of the boot."""
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline:
            state = self.run(["systemctl", "is-system-running"], check=False).stdout.strip()
            if state in {"running", "degraded"}:
                return
            if not self._runs():
                said = _docker("logs", "--tail=20", self.container, check=False)
                raise NoMachine(f"systemd does not run as PID 1 of a container here: {said.stdout}{said.stderr}")
            time.sleep(0.1)
        raise NoMachine(f"systemd does not come up within {BOOT_SECONDS:g} s in a container: {self.journal()}")

    def journal(self, *arguments: str) -> str:
        """The end of the journal, for whoever has to find out what went wrong."""
        chosen = arguments or ("--lines=40",)
        return self.run(["journalctl", "--no-pager", "--output=short-precise", *chosen], check=False).stdout

    @property
    def root(self) -> Path:
        """Its root folder as a process of the host sees it; its /proc, /run and /tmp are below it as well."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def system_bus(self) -> str:
        """The address of its system bus as a process of the host can use it: by way of PID 1's root."""
        return f"unix:path=/proc/{self.pid}/root/run/dbus/system_bus_socket"

    def remove(self) -> None:
        """End it, and leave nothing of it."""
        _docker("rm", "--force", "--volumes", self.container, check=False)

    def _runs(self) -> bool:
        return _docker("inspect", "--format={{.State.Running}}", self.container).stdout.strip() == "true"

    def _read(self) -> None:
        (found,) = json.loads(_docker("inspect", self.container).stdout)
        self.pid = found["State"]["Pid"]
        (network,) = found["NetworkSettings"]["Networks"].values()
        self.address = network["IPAddress"]


def _docker(
    *words: str, text_in: str | None = None, check: bool = True, timeout_seconds: float = 120.0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["docker", *words],
        input=text_in,
        stdin=subprocess.DEVNULL if text_in is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_seconds,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    if check and done.returncode != 0:
        raise MachineError(f"docker {' '.join(words)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def sweep() -> None:
    """Remove the machines and networks of test runs that were killed before they could."""
    for kind, listing in (("container", ["ps", "--all"]), ("network", ["network", "ls"])):
        ids = _docker(*listing, "--quiet", f"--filter=label={_LABEL}").stdout.split()
        for identity in ids:
            labels = "{{json .Config.Labels}}" if kind == "container" else "{{json .Labels}}"
            shown = _docker(kind, "inspect", f"--format={labels}", identity, check=False)
            if shown.returncode == 0 and not _lives(str(json.loads(shown.stdout).get(_LABEL))):
                _docker(kind, "rm", *(["--force", "--volumes"] if kind == "container" else []), identity, check=False)


def _owner() -> str:
    """This test run: its process, and the start of that, since numbers come round again."""
    return f"{os.getpid()}-{_started(os.getpid())}"


def _lives(owner: str) -> bool:
    pid, _, started = owner.partition("-")
    return pid.isdigit() and _started(int(pid)) == started


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
