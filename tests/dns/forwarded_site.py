"""A machine as docs/dns.md describes it: a Consul agent, a forwarder by a recipe of consul.d/dns, two services."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from debian_packages import Tree
from netspace import Netspace, until

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.rendering.resources import shipped

CONSUL_D = Path(str(shipped("consul.d")))
SERVER = Path(__file__).with_name("listening_service.py")
PORT = 8080
CHECK_INTERVAL_SECONDS = 1.0


class _UnixConnection(http.client.HTTPConnection):
    """To Consul's API on a socket of the file system, which is reached from outside of the network."""

    def __init__(self, path: Path) -> None:
        super().__init__("consul", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


@dataclass
class Site:
    """The machine. Instances of ``web`` are at addresses of loopback, which in there is its own."""

    space: Netspace
    packages: Tree
    socket_path: Path
    instances: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    # --- Consul and services --------------------------------------------------------------------------------------

    def start_consul(self, binary: ConsulBinary) -> None:
        """An agent with the DNS settings of consul.d, on Consul's own ports."""
        config = self.space.folder / "consul.json"
        settings = {
            "bind_addr": "127.0.0.1", "addresses": {"http": f"unix://{self.socket_path}"}, "disable_update_check": True,
            "node_name": "n1", "ports": {"grpc": -1, "serf_wan": -1},
        }  # fmt: skip
        config.write_text(json.dumps(settings))
        files = [f"-config-file={config}", f"-config-file={CONSUL_D / 'dns.hcl'}"]
        consul = self.space.spawn([binary.path, "agent", "-dev", *files], "consul")
        until(lambda: self._is_ready(consul), f"Consul to lead: {self.space.log('consul')}")

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """What Consul's API answers."""
        connection = _UnixConnection(self.socket_path)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, f"{method} {path}: {answer.status} {text!r}"
            return json.loads(text) if text else None
        finally:
            connection.close()

    def start_instance(self, address: str) -> None:
        """Start an instance of ``web``."""
        self.instances[address] = self.space.spawn([sys.executable, "-S", "-E", SERVER, address, str(PORT)], address)

    def kill_instance(self, address: str) -> None:
        process = self.instances.pop(address)
        process.kill()
        process.wait()

    def register(self, address: str, *tags: str) -> None:
        """Register an instance as passing, with a check that Consul runs."""
        check = {
            "Name": "tcp", "TCP": f"{address}:{PORT}", "Interval": f"{CHECK_INTERVAL_SECONDS:g}s", "Timeout": "500ms",
            "Status": "passing",
        }  # fmt: skip
        body = {"ID": address, "Name": "web", "Address": address, "Port": PORT, "Tags": tags, "Check": check}
        self.ask("PUT", "/v1/agent/service/register", body)

    def passing(self) -> set[str]:
        """The addresses that pass, by the catalog."""
        return {entry["Service"]["Address"] for entry in self.ask("GET", "/v1/health/service/web?passing")}

    def _is_ready(self, consul: subprocess.Popen[bytes]) -> bool:
        assert consul.poll() is None, self.space.log("consul")
        try:
            return bool(self.ask("GET", "/v1/status/leader")) and bool(self.ask("GET", "/v1/catalog/service/consul"))
        except (OSError, AssertionError):
            return False

    # --- what programs see ----------------------------------------------------------------------------------------

    def addresses(self, name: str = "web.service.consul") -> set[str]:
        """What the C library of any program finds for a name: ``getent``."""
        done = self.space.run(["getent", "ahostsv4", name])
        return {line.split()[0] for line in done.stdout.splitlines()}

    def hosts(self, name: str) -> int:
        """The exit status of ``getent hosts``: 0 if the name is found, 2 if not."""
        return self.space.run(["getent", "hosts", name]).returncode

    def targets(self, name: str = "web.service.consul") -> set[tuple[str, int]]:
        """What ``dig SRV`` finds: each target, asked for its address in turn, with its port."""
        dig: list[str | Path] = [self.packages.program("dig"), "+short", "+tries=1", "+time=3"]
        found = set()
        for line in self.space.run([*dig, "SRV", name], self.packages.environ).stdout.splitlines():
            if len(words := line.split()) == 4:
                address = self.space.run([*dig, "A", words[3]], self.packages.environ).stdout.strip()
                found.add((address, int(words[2])))
        return found

    def citadel(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command line, on that machine."""
        environ = {**os.environ, "CONSUL_HTTP_ADDR": f"unix://{self.socket_path}"}
        return self.space.run([sys.executable, "-m", "citadel_consul", *words], environ)
