"""A stack that is drilled: a store with its data, and who depends on it, all real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from real_world import MARK, World, free_port

from citadel_consul.core.model import Check, CheckKind, Edge, OnRecovery, ProcessBackend, ServiceSpec
from citadel_consul.core.operation import Kind, OperationState

SERVICE = Path(__file__).with_name("drill_service.py")


class Drill:
    """How a drill ended, and what it said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    @property
    def answer(self) -> Any:
        return json.loads(self.out)

    @property
    def failures(self) -> dict[str, str]:
        """The lines that failed, each with its reason."""
        lines = [line for phase in self.answer["phases"] for line in phase["lines"]]
        return {line["text"]: line["reason"] for line in lines if line["result"] == "failed"}

    def __str__(self) -> str:
        return f"exit status {self.status}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class DrilledWorld(World):
    """A world whose stack is ``store`` below ``api`` and ``report``, ``web`` on top."""

    def store(self, *words: str, **fields: Any) -> ServiceSpec:
        """The store; ``words`` say what is wrong with it."""
        port = self.ports.setdefault("store", free_port())
        command = (sys.executable, "-S", "-E", str(SERVICE), str(port), str(self.folder), *words)
        url = f"http://127.0.0.1:{port}"
        defaults: dict[str, Any] = {
            "backend": ProcessBackend(command=command, env=MARK),
            "endpoint": url,
            "health_endpoint": f"{url}/health",
            "checks": (Check("tcp", CheckKind.TCP, f"127.0.0.1:{port}", interval_seconds=1.0, timeout_seconds=1.0),),
            "start_timeout_seconds": 60.0,
            "stop_timeout_seconds": 1.0,
        }
        return ServiceSpec("store", "database", ("n1",), **{**defaults, **fields})

    def data(self) -> Path:
        """The file that says how data is put into the store."""
        url = f"http://127.0.0.1:{self.ports['store']}/data/{{{{ token }}}}"
        requests = {
            "write": {"url": url, "method": "PUT", "json": {"is": "{{ token }}"}},
            "read": {"url": url, "method": "GET", "contains": "{{ token }}"},
            "within_seconds": 2,
        }
        path = self.folder / "drill.yaml"
        path.write_text(yaml.safe_dump(requests))
        return path

    def bring_up(
        self,
        *words: str,
        start: bool = True,
        web: dict[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        agent: Mapping[str, str] | None = None,
        **settings: str,
    ) -> None:
        """Apply the stack and run it; ``environ`` and ``settings`` are the orchestrator's, ``agent`` the agent's."""
        edges = [
            Edge("api", "store", on_recovery=OnRecovery.RESTART),
            Edge("report", "store", on_recovery=OnRecovery.NOTIFY),
            Edge("web", "api"),
        ]
        tinies = [self.tiny("api"), self.tiny("report", critical=False), self.tiny("web", **(web or {}))]
        self.apply([self.store(*words), *tinies], edges)
        self.orchestrator(**{**(environ or {}), **settings})
        self.agent(**(agent or {}))
        self.until_led()
        self.until(lambda: self.snapshot().agents, what="an agent")
        if start:
            assert self.operate(Kind.STARTUP).state is OperationState.SUCCEEDED, self.logs()

    def drill(self, *words: str, within: float = 300.0) -> Drill:
        """Run ``citadel drill`` as a process; it gets no terminal."""
        environ = {**self.environ, "CONSUL_HTTP_ADDR": self.consul, "CITADEL_STACK": self.stack}
        return Drill(
            subprocess.run(
                [sys.executable, "-m", "citadel_consul", "drill", *words], env=environ, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=within, check=False,
            )
        )  # fmt: skip

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for pid in self.lives("store"):
            if self.is_store(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def is_store(self, pid: int) -> bool:
        """Whether a process is this world's store."""
        try:
            return str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
