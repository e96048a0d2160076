"""Processes of ``registered_server.py``: started, paused, killed and told to stop by tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consul_process import ConsulProcess, ConsulSpace

_PROGRAM = Path(__file__).with_name("registered_server.py")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0, pause_seconds: float = 0.05) -> None:
    """Return when ``condition`` holds; an AssertionError says ``what`` was waited for in vain."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"in vain waited {seconds:g} s for {what}")
        time.sleep(pause_seconds)


def _ordinary_environment() -> dict[str, str]:
    """Without the measuring of coverage, which takes SIGTERM for itself: an ordinary service ends by it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "COV_CORE_"))}


class ServiceProcess:
    """One instance of ``service`` in a process of its own."""

    def __init__(
        self,
        consul: ConsulSpace | ConsulProcess,
        service: str,
        mode: str = "async",
        port: int | None = None,
        instance_id: str | None = None,
        drain_seconds: float = 0.5,
        ttl_seconds: float = 1.5,
    ) -> None:
        self.consul = consul
        self.service = service
        self.port = port or free_port()
        self.instance_id = instance_id or f"{service}:test:{self.port}"
        self.popen = subprocess.Popen(
            [sys.executable, str(_PROGRAM), consul.address, service, str(self.port), mode],
            env={
                **_ordinary_environment(),
                "INSTANCE_ID": self.instance_id,
                "DRAIN_SECONDS": str(drain_seconds),
                "TTL_SECONDS": str(ttl_seconds),
            },
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # as a service is: Linux shares cores among sessions first (autogroup)
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def checks(self) -> dict[str, str]:
        """The statuses of its checks in the catalog, by the last part of their ids; empty if it is not there."""
        found: list[dict[str, Any]] = self.consul.request("GET", f"/v1/health/checks/{self.service}")
        mine = [check for check in found if check["ServiceID"] == self.instance_id]
        return {check["CheckID"].removeprefix(f"{self.instance_id}:"): check["Status"] for check in mine}

    @property
    def passes(self) -> bool:
        """Whether the catalog shows it passing where it is: of what was killed, the old address passes for a while."""
        found: list[dict[str, Any]] = self.consul.request("GET", f"/v1/health/service/{self.service}?passing")
        return any((one["Service"]["ID"], one["Service"]["Port"]) == (self.instance_id, self.port) for one in found)

    def until_passing(self) -> ServiceProcess:
        wait_for(lambda: self.passes, f"{self.instance_id} to pass")
        return self

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def wait(self, seconds: float = 10.0) -> int:
        return self.popen.wait(seconds)

    def end(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
