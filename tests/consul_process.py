"""A Consul for tests: the real program, in memory, on ports of its own."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.ports import LOOPBACK, OFF, Ports, free_ports

_READY_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """In the child, before exec: a killed run leaves no Consul behind. The parent is the *thread* that starts it."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ConsulProcess:
    """``consul agent -dev``: it forgets everything when it ends. Started again, it has the same ports."""

    def __init__(self, binary: ConsulBinary, directory: Path, node: str = "test", config: dict[str, Any] | None = None):
        self.binary = binary
        self.node = node
        self.ports: Ports = free_ports()
        self.log_file = directory / f"consul-{self.ports.http}.log"
        self._config = config or {}
        self._config_file = directory / f"consul-{self.ports.http}.json"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return LOOPBACK

    @property
    def port(self) -> int:
        return self.ports.http

    @property
    def address(self) -> str:
        """Host and port, as CONSUL_HTTP_ADDR has it."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def pid(self) -> int:
        return self._running.pid

    def start(self) -> None:
        """Start it, and return when it leads and its catalog answers."""
        for attempt in (1, 2, 3):
            self._spawn()
            try:
                self._wait_until_ready()
            except ChildProcessError:
                self._config_file.unlink()
                if attempt == 3 or "address already in use" not in self.log_file.read_text():
                    raise
                self.ports = free_ports()
            else:
                return

    def stop(self) -> None:
        """End it in good order (SIGTERM, SIGKILL after 10 s)."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def end(self) -> None:
        """End it at once, if it runs: there is nothing to lose."""
        if self._process is not None:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, as the machine's OOM killer does it."""
        self._running.kill()
        self._running.wait()
        self._process = None

    def suspend(self) -> None:
        """SIGSTOP: its ports accept connections, and nobody answers."""
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running.send_signal(signal.SIGCONT)

    def request(self, method: str, path: str, body: object = None, token: str | None = None) -> Any:
        """What the HTTP API answers, decoded. A body that is not ``bytes`` is sent as JSON. Errors are HTTPErrors."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"X-Consul-Token": token} if token else {}
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method, headers=headers)
        with _direct.open(request, timeout=10) as response:
            text = response.read()
        return json.loads(text) if text else None

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("this Consul was not started")
        return self._process

    def _spawn(self) -> None:
        ports = {
            "http": self.ports.http,
            "dns": self.ports.dns,
            "grpc": self.ports.grpc,
            "serf_lan": self.ports.serf,
            "serf_wan": OFF,
            "server": self.ports.server,
        }
        if self.binary.release >= (1, 14):
            ports["grpc_tls"] = OFF
        config = {
            "node_name": self.node,
            "bind_addr": LOOPBACK,
            "client_addr": LOOPBACK,
            "ports": ports,
            "disable_update_check": True,
            "enable_local_script_checks": True,
            # A query that waits counts against its client (one address: all tests) until its wait ends, also when the
            # client was killed; the default of 200 is soon used up by tests that kill.
            "limits": {"http_max_conns_per_client": 5000},
            **self._config,
        }
        self._config_file.write_text(json.dumps(config))
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                [self.binary.path, "agent", "-dev", f"-config-file={self._config_file}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if self._running.poll() is not None:
                raise ChildProcessError(f"Consul ended at its start:\n{self.log_file.read_text()[-3000:]}")
            if self._answers():
                return
            time.sleep(0.02)
        self.kill()
        raise TimeoutError(f"Consul was not ready in {_READY_SECONDS} s:\n{self.log_file.read_text()[-3000:]}")

    def _answers(self) -> bool:
        """Whether it leads and its node is healthy, so that sessions can be made. Holds with ACLs that deny as well."""
        try:
            if not self.request("GET", "/v1/status/leader"):
                return False
            checks = self.request("GET", f"/v1/health/node/{self.node}?consistent")
        except urllib.error.HTTPError as error:
            with error:
                return error.code == 403
        except OSError:
            return False
        # With ACLs on, what may not be seen is left out without a word.
        return bool(self._config.get("acl")) or any(check["CheckID"] == "serfHealth" for check in checks)


# Never through a proxy: everything is on loopback.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class ConsulSpace:
    """A test's own part of a Consul that many tests share: a stack of its own.

    Service names are shared by all tests: what a test registers is taken away after it.
    """

    server: ConsulProcess
    stack: str

    @property
    def prefix(self) -> str:
        """The KV prefix of the stack, with its slash at the end."""
        return f"citadel/{self.stack}/"

    @property
    def address(self) -> str:
        return self.server.address

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def host(self) -> str:
        return self.server.host

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def node(self) -> str:
        """The node's name in the catalog."""
        return self.server.node

    def request(self, method: str, path: str, body: object = None, token: str | None = None) -> Any:
        return self.server.request(method, path, body, token)


def new_space(server: ConsulProcess) -> ConsulSpace:
    return ConsulSpace(server, f"t-{uuid.uuid4().hex[:12]}")


def clear(server: ConsulProcess) -> None:
    """Take away all that tests left in a Consul: services, checks, sessions, KV."""
    for service in server.request("GET", "/v1/agent/services"):
        server.request("PUT", f"/v1/agent/service/deregister/{service}")
    for check in server.request("GET", "/v1/agent/checks"):
        server.request("PUT", f"/v1/agent/check/deregister/{check}")
    for session in server.request("GET", "/v1/session/list"):
        server.request("PUT", f"/v1/session/destroy/{session['ID']}")
    server.request("DELETE", "/v1/kv/?recurse")


def processes_marked(variable: str, value: str) -> dict[int, str]:
    """Living processes whose environment has ``variable=value``, but this one: pid to command line."""
    wanted = f"{variable}={value}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found
