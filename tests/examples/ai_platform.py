"""Runs the example platform for tests: the real processes of its stack file, on free ports, known to a real Consul."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import httpx
import jinja2
import yaml
from consul_process import ConsulSpace

EXAMPLE = Path(__file__).parents[2] / "examples" / "ai-platform"
if str(EXAMPLE) not in sys.path:
    sys.path.insert(0, str(EXAMPLE))

from services.application import Connections  # noqa: E402 - importable from here on
from services.settings import Settings  # noqa: E402

KEY = "demo-key-for-loopback-only"
_READY_SECONDS = 30.0
_STOP_SECONDS = 10.0


def free_ports(count: int) -> list[int]:
    """Ports that are free at this moment, each another one."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_until(condition: Callable[[], bool], what: str, seconds: float = _READY_SECONDS) -> None:
    """Return as soon as ``condition`` holds; an AssertionError names ``what`` was waited for in vain."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"in vain waited {seconds:g} s for {what}")
        time.sleep(0.02)


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on ``port`` of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user may enter: postgres refuses to run as root, so another user has to.

    Not one of pytest's, which are closed to others, and which each run closes again for all runs.
    """
    with tempfile.TemporaryDirectory(prefix="ai-platform-", dir="/tmp" if os.geteuid() == 0 else None) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@asynccontextmanager
async def connections_to(consul: ConsulSpace, **ports: int) -> AsyncIterator[Connections]:
    """Connections of a service to those of ``ports`` on this machine, which Consul knows from now on."""
    for service, port in ports.items():
        body = {"Name": service, "Address": "127.0.0.1", "Port": port}
        consul.request("PUT", "/v1/agent/service/register", body)
    connections = Connections(Settings("test", port=1, consul_url=consul.url))
    try:
        yield connections
    finally:
        await connections.close()


def spawned(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A process in a session of its own, with the little environment that a node agent gives it."""
    # What marks the processes of this test run, so that none is left behind unseen.
    marks = {key: value for key, value in os.environ.items() if key.startswith("CITADEL_")}
    base = {"PATH": os.environ["PATH"], "HOME": str(log.parent), "LANG": "C.UTF-8"}
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=EXAMPLE,
            env={**base, **marks, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextmanager
def launched(module: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A service's process, started as the stack file starts it; killed at the end if it still runs."""
    process = spawned([sys.executable, "-m", module], environment, log)
    try:
        wait_until(
            lambda: process.poll() is not None or accepts_connections(int(environment["PORT"])), f"{module} to listen"
        )
        yield process
    finally:
        process.kill()
        process.wait()


def stack_on_free_ports() -> dict[str, Any]:
    """The stack file as data, its defaults merged into its services, every port replaced by a free one."""
    text = (EXAMPLE / "stack.yaml").read_text()
    ports = sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", text)))
    for old, new in zip(ports, free_ports(len(ports)), strict=True):
        text = re.sub(rf"\b{old}\b", str(new), text)
    stack = yaml.safe_load(text)
    defaults = stack["defaults"]
    for service in stack["services"].values():
        service["backend"] = {
            **defaults["backend"],
            **service["backend"],
            "env": {**defaults["backend"]["env"], **service["backend"]["env"]},
        }
        service.setdefault("nodes", defaults["nodes"])
    return dict(stack["services"])


def edges(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a service depends on, whichever form the file has."""
    written = spec.get("depends_on") or {}
    return {name: {} for name in written} if isinstance(written, list) else {k: v or {} for k, v in written.items()}


class PlatformProcesses:
    """The twelve services as processes of this test run."""

    def __init__(self, consul: str, folder: Path) -> None:
        self.services = stack_on_free_ports()
        self._consul = consul
        self._folder = folder
        self._http = httpx.Client(trust_env=False, timeout=20.0)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def _levels(self) -> list[tuple[str, ...]]:
        """The services in groups, each group after those that it depends on."""
        sorter = TopologicalSorter({name: edges(spec) for name, spec in self.services.items()})
        sorter.prepare()
        found = []
        while sorter.is_active():
            found.append(sorter.get_ready())
            sorter.done(*found[-1])
        return found

    def port(self, name: str) -> int:
        return int(self.services[name]["backend"]["env"]["PORT"])

    def url(self, name: str, path: str = "") -> str:
        return f"http://127.0.0.1:{self.port(name)}{path}"

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def start(self) -> None:
        """Start every service, each when those that it depends on are ready."""
        for level in self._levels():
            for name in level:
                self._spawn(name)
            for name in level:
                self._welcome(name)

    def start_one(self, name: str) -> None:
        """Start a service as the stack file says, wait until its check passes, and tell Consul."""
        self._spawn(name)
        self._welcome(name)

    def _spawn(self, name: str) -> None:
        spec = self.services[name]
        variables = {
            "python": sys.executable,
            "node": {"name": spec["nodes"][0], "address": "127.0.0.1"},
            "service": {"name": name},
            "data_dir": str(self._folder / "data" / name),
            "consul_http_addr": self._consul,
        }
        render = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string
        command = [render(part).render(variables) for part in spec["backend"]["command"]]
        environment = {key: render(value).render(variables) for key, value in spec["backend"]["env"].items()}
        self.processes[name] = spawned(command, environment, self._folder / f"{name}.log")

    def _welcome(self, name: str) -> None:
        wait_until(lambda: self._ready(name), f"{name} to be ready")
        self._register(name)

    def stop(self) -> dict[str, tuple[int, float]]:
        """Stop every service by its signal, dependents first: exit statuses, and how long each took in seconds."""
        ended: dict[str, tuple[int, float]] = {}
        for level in reversed(self._levels()):
            begun = time.monotonic()
            for name in level:
                self._http.put(f"http://{self._consul}/v1/agent/service/deregister/{name}")
                number = signal.Signals[self.services[name]["backend"].get("stop_signal", "SIGTERM")]
                self.processes[name].send_signal(number)
            for name in level:
                status = self.processes.pop(name).wait(_STOP_SECONDS)
                ended[name] = (status, time.monotonic() - begun)
        return ended

    def end(self) -> None:
        """Kill whatever still runs."""
        for name in list(self.processes):
            self.kill_one(name)
        self._http.close()

    def kill_one(self, name: str) -> None:
        """SIGKILL, as the machine's OOM killer does it; Consul is not told."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _ready(self, name: str) -> bool:
        if self.processes[name].poll() is not None:
            raise AssertionError(f"{name} ended before it was ready: {self.log(name)}")
        if "tcp" in self.services[name]["checks"][0]:
            return accepts_connections(self.port(name))
        try:
            return self._http.get(self.url(name, "/health")).status_code == 200
        except httpx.TransportError:
            return False

    def _register(self, name: str) -> None:
        check = self.services[name]["checks"][0]
        kind = "tcp" if "tcp" in check else "http"
        body = {
            "Name": name,
            "Address": "127.0.0.1",
            "Port": self.port(name),
            "Tags": ["ai-platform"],
            "Check": {kind.upper(): check[kind], "Interval": "1s", "Timeout": "2s", "Status": "passing"},
        }
        self._http.put(f"http://{self._consul}/v1/agent/service/register", json=body).raise_for_status()

    def request(
        self, name: str, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """A request to one of the services."""
        return self._http.request(method, self.url(name, path), json=body, headers=headers)

    def get(self, name: str, path: str) -> Any:
        """What a service answers, decoded."""
        return self.request(name, "GET", path).json()

    def post(self, path: str, body: dict[str, Any], key: str = KEY) -> httpx.Response:
        """A request to the gateway."""
        return self.request("api-gateway", "POST", path, body, {"authorization": f"Bearer {key}"} if key else {})

    def ask(self, question: str, key: str = KEY) -> httpx.Response:
        """A question at the gateway."""
        return self.post("/v1/ask", {"question": question}, key)
