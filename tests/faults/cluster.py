"""A real Consul cluster on loopback: three servers with their data on disk, and client agents that join them.

Every member is a process of its own that can be killed, paused and started again, with its data or without. A member
keeps its ports, its name and its node id for good, as a machine does.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from consul_process import ConsulProcess, die_with_parent

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.ports import LOOPBACK, OFF

SERVERS = ("s1", "s2", "s3")
NODES = ("n1", "n2")
"""The names of the client agents, which are those of the nodes of the stacks."""
READY_SECONDS = 120.0


class Member(ConsulProcess):
    """One agent of the cluster; :meth:`launch` does not wait for the others."""

    def __init__(self, binary: ConsulBinary, folder: Path, node: str, *, server: bool) -> None:
        super().__init__(binary, folder, node)
        self.server = server
        self.data = folder / f"data-{node}"
        self.join: Sequence[int] = ()
        self._node_id = str(uuid.uuid4())
        self._folder = folder

    @property
    def running(self) -> bool:
        return self._process is not None

    def launch(self) -> None:
        """Start it, and do not wait."""
        self._spawn()

    def until_ready(self, within: float = READY_SECONDS) -> None:
        """Wait until it sees a Consul leader and itself as healthy."""
        deadline = time.monotonic() + within
        while not self._answers():
            if self._running.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"{self.node} is not ready:\n{self.log_file.read_text()[-3000:]}")
            time.sleep(0.05)

    def wipe(self) -> None:
        """Lose all that it had on disk. It must not run."""
        shutil.rmtree(self.data, ignore_errors=True)

    def _spawn(self) -> None:
        config = {**self._common(), **(self._server() if self.server else {"server": False})}
        self._config_file.write_text(json.dumps(config))
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                [self.binary.path, "agent", f"-config-file={self._config_file}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _common(self) -> dict[str, Any]:
        ports = {
            "http": self.ports.http,
            "dns": OFF,
            "grpc": OFF,
            "serf_lan": self.ports.serf,
            "serf_wan": OFF,
            "server": self.ports.server,
        }
        if self.binary.release >= (1, 14):
            ports["grpc_tls"] = OFF
        return {
            "node_name": self.node,
            "node_id": self._node_id,
            "data_dir": str(self.data),
            "bind_addr": LOOPBACK,
            "client_addr": LOOPBACK,
            "ports": ports,
            "retry_join": [f"{LOOPBACK}:{port}" for port in self.join],
            "retry_interval": "500ms",
            "leave_on_terminate": False,
            "skip_leave_on_interrupt": True,
            "rejoin_after_leave": True,
            "disable_update_check": True,
            "limits": {"http_max_conns_per_client": 2000},
            "log_level": "WARN",
        }

    def _server(self) -> dict[str, Any]:
        return {"server": True, "bootstrap_expect": len(SERVERS), "performance": {"raft_multiplier": 1}}


class Cluster:
    """Three servers, and a client agent for each name of ``clients``. Use it as a context manager.

    All processes are started by one thread of its own: whoever started a process must not end before it does.
    """

    def __init__(self, binary: ConsulBinary, folder: Path, clients: Sequence[str] = ()) -> None:
        self.servers = [Member(binary, folder, name, server=True) for name in SERVERS]
        self.clients = {name: Member(binary, folder, name, server=False) for name in clients}
        self._starter = ThreadPoolExecutor(1)
        for member in self.members:
            member.join = [server.ports.serf for server in self.servers]

    @property
    def members(self) -> list[Member]:
        return [*self.servers, *self.clients.values()]

    def __enter__(self) -> Self:
        for member in self.members:
            self.start(member)
        self.until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.end()
        self._starter.shutdown()

    def start(self, member: Member) -> None:
        """Start a member that does not run."""
        self._starter.submit(member.launch).result(30)

    def heal(self) -> None:
        """Start whatever does not run, resume what is paused, and wait until all is well."""
        for member in self.members:
            if member.running:
                member.resume()
            else:
                self.start(member)
        self.until_ready()

    def until_ready(self) -> None:
        """Wait until every member sees a leader and itself as healthy."""
        for member in self.members:
            member.until_ready()

    def leader(self) -> Member:
        """The server that leads Consul itself; ``TimeoutError`` if there is none for long."""
        found: list[Member] = []

        def look() -> bool:
            found[:] = [server for server in self.servers if server.running and _leads(server)]
            return len(found) == 1

        until(look, READY_SECONDS, "a Consul leader")
        return found[0]

    def lose_quorum(self) -> list[Member]:
        """Kill the leader and another server; returns both."""
        lost = self.leader()
        others = [server for server in self.servers if server is not lost]
        for server in (lost, others[0]):
            server.kill()
        return [lost, others[0]]


def until(condition: Callable[[], object], within: float, what: str) -> None:
    """Wait for ``condition``, or raise ``TimeoutError``."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within} s: {what}")
        time.sleep(0.05)


def _leads(server: Member) -> bool:
    try:
        return bool(server.request("GET", "/v1/agent/self")["Stats"]["consul"]["leader"] == "true")
    except (OSError, KeyError):
        return False
