"""A machine with Consul, citadel installed from a wheel, and a small stack of systemd units and a program of its own.

``store`` and ``web`` are units that systemd started at boot before citadel came, ``worker`` is a program that the node
agent runs itself. ``web`` needs ``store``, ``worker`` needs ``web``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine_image import CHECKOUT, ENVIRONMENT, ROOT, WHEELS
from managed_machine import Machine

HOME = "/opt/citadel"
CITADEL = f"{HOME}/bin/citadel"
NODE = "n1"
STACK = "shop"
UNITS = ("store.service", "web.service")
PORTS = {"store": 7001, "web": 7002, "worker": 7003}
ROLES = ("citadel-orchestrator.service", "citadel-agent.service")

_UNIT = """
[Unit]
Description={name}
[Service]
ExecStart=/usr/bin/python3 -m http.server {port} --bind 127.0.0.1
WorkingDirectory=/srv
[Install]
WantedBy=multi-user.target
"""
_SERVICE = """
  {name}:
    type: service
    nodes: [n1]
    endpoint: http://127.0.0.1:{port}
    backend: {backend}
    checks: [{{http: "http://127.0.0.1:{port}/", interval: 1s, timeout: 1s}}]
    depends_on: [{needs}]
"""
_PROGRAM = '["/usr/bin/python3", "-m", "http.server", "{port}", "--bind", "127.0.0.1"]'
_BEYOND = (
    *("proc", "sys", "dev", "run", "tmp", "var/tmp", "var/log", "var/lib/consul", "root/.cache"),
    *(place.lstrip("/") for place in (CHECKOUT, ENVIRONMENT, WHEELS, f"{HOME}/lib")),
    *(f"etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow")),
)
"""What is no part of the tree that an installation may change: it changes by itself, belongs to the tests, is citadel's
own program, or is the copy that is made of the accounts before each change of them."""
_TREE = f"""
import hashlib, json, os, stat
found = {{}}
beyond = {_BEYOND!r}
for folder, folders, files in os.walk('/'):
    folders[:] = [f for f in folders if os.path.join(folder, f).lstrip('/') not in beyond and f != '__pycache__']
    for name in folders + files:
        path = os.path.join(folder, name)
        if path.lstrip('/') in beyond:
            continue
        status = os.lstat(path)
        what = ''
        if stat.S_ISLNK(status.st_mode):
            what = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            with open(path, 'rb') as file:
                what = hashlib.sha256(file.read()).hexdigest()
        found[path] = [oct(status.st_mode), status.st_uid, status.st_gid, what]
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Site:
    """The machine, and what a test does there."""

    machine: Machine

    @classmethod
    def make(cls, machine: Machine, wheel: Path) -> Site:
        """Consul, the units, which run and are started at boot, and citadel's program. Nothing else of citadel's."""
        site = cls(machine)
        machine.start_consul()
        for name in ("store", "web"):
            machine.unit(f"{name}.service", _UNIT.format(name=name, port=PORTS[name]))
        machine.daemon_reload()
        machine.run(["systemctl", "enable", "--now", *UNITS])
        # A virtual environment with what citadel depends on: quicker to copy than to install anew.
        script = f"cp -a {ENVIRONMENT} {HOME} && rm {HOME}/lib/python3*/site-packages/checkout.pth {CITADEL}"
        machine.run(["sh", "-c", script])
        site.put(wheel)
        return site

    def put(self, wheel: Path) -> None:
        """Install a wheel of citadel's as pip does it, in the place of one that may be there."""
        self.machine.copy(wheel, f"/opt/{wheel.name}")
        pip = [f"{HOME}/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index"]
        self.machine.run([*pip, "--no-deps", "--force-reinstall", "--no-compile", f"/opt/{wheel.name}"])
        self.machine.run(["rm", f"/opt/{wheel.name}"])

    @property
    def program(self) -> str:
        """citadel's program there."""
        return CITADEL

    def citadel(self, *words: str, check: bool = True) -> str:
        """What ``citadel`` prints, as root."""
        done = self.machine.run([CITADEL, *words], check=check)
        return done.stdout + done.stderr

    def install(self, *words: str) -> str:
        """Install both roles."""
        common = ("--stack", STACK, "--node", NODE, *words)
        units = tuple(word for unit in UNITS for word in ("--unit", unit))
        return self.citadel("install", "orchestrator", *common) + self.citadel("install", "agent", *common, *units)

    def apply(self, services: Iterable[str] = ("store", "web", "worker"), *, needs: bool = True) -> None:
        """Write the stack, or a part of it, and bring it up; without ``needs`` there are no edges."""
        self.machine.write("/srv/stack.yaml", stack_of(services, needs=needs))
        self.citadel("apply", "/srv/stack.yaml")
        self.citadel("up", "--timeout", "100s")

    def health(self) -> dict[str, str]:
        """The status of each service; empty while nobody can say."""
        done = self.machine.run([CITADEL, "services", "-o", "json"], check=False)
        if done.returncode != 0:
            return {}
        return {entry["name"]: entry["status"] for entry in _services(json.loads(done.stdout))}

    def until_healthy(
        self, services: Iterable[str] = ("store", "web", "worker"), within_seconds: float = 180.0
    ) -> None:
        """Wait until exactly these services are healthy."""
        wanted = dict.fromkeys(services, "healthy")
        self.machine.until(lambda: self.health() == wanted, f"{wanted}", within_seconds)

    def lives(self) -> dict[str, tuple[str, str]]:
        """Process and start time of everything that is a service here: what no change of citadel's may change."""
        found = {}
        for name, port in PORTS.items():
            pid = self.machine.run(["pgrep", "-f", f"http.server {port} "], check=False).stdout.split()
            if pid:
                found[name] = (pid[0], self.machine.output("stat", "-c", "%Y", f"/proc/{pid[0]}"))
        return found

    def main_pid(self, unit: str) -> str:
        return self.machine.shown(unit, "MainPID")

    def tree(self) -> dict[str, list[Any]]:
        """Every file of the machine: mode, owner, and content or target."""
        found: dict[str, list[Any]] = json.loads(self.machine.run(["python3", "-c", _TREE]).stdout)
        return found


def stack_of(services: Iterable[str], *, needs: bool = True) -> str:
    """A stack file."""
    backends = {
        "store": "{kind: systemd, unit: store.service}",
        "web": "{kind: systemd, unit: web.service}",
        "worker": f"{{command: {_PROGRAM.format(port=PORTS['worker'])}}}",
    }
    edges = {"web": "store", "worker": "web"} if needs else {}
    parts = [
        _SERVICE.format(name=name, port=PORTS[name], backend=backends[name], needs=edges.get(name, ""))
        for name in services
    ]
    return f"version: 1\nstack: {STACK}\nservices:{''.join(parts)}"


def differences(before: Mapping[str, list[Any]], after: Mapping[str, list[Any]]) -> dict[str, tuple[Any, Any]]:
    """What is not the same in two trees."""
    return {
        path: (before.get(path), after.get(path))
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    }


def build_wheel(source: Path, target: Path, version: str | None = None) -> Path:
    """The wheel of a source tree; with ``version`` it says that it is that one. The tree is not touched."""
    copy = target / "source"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "tests", "build", "dist", "docs")
    shutil.copytree(source, copy, ignore=ignored)
    if version is not None:
        for name in ("pyproject.toml", "citadel_consul/__init__.py"):
            path = copy / name
            path.write_text(path.read_text().replace('"0.1.0"', f'"{version}"'))
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(target / "dist"), str(copy)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=target, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    (wheel,) = (target / "dist").glob("*.whl")
    return wheel


def source_of(commit: str, target: Path) -> Path | None:
    """The source tree of an earlier commit; None if this checkout does not have it."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode != 0:
        return None
    target.mkdir()
    subprocess.run(["tar", "-x", "-C", str(target)], input=archive.stdout, check=True)
    return target


def _services(answer: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer["services"] if isinstance(answer, dict) else answer
    return found
