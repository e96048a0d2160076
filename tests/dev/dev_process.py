"""``citadel dev`` as a process, on a small stack of tiny services, to be interrupted and killed by tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson
import yaml
from real_world import TINY, free_port

from citadel_consul.agent.chronicle import Entry, read_chronicle

WITHIN = 60.0
"""How long anything may take (seconds) on a machine under load."""


class Dev:
    """One run. Its output is read as it comes, so that it never waits for us."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.popen = popen
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """All that it has said so far."""
        with self._news:
            return "\n".join(self._lines)

    def until(self, words: str, within: float = WITHIN) -> str:
        """Wait for a line with ``words``; returns it."""
        deadline = time.monotonic() + within
        with self._news:
            while True:
                found = next((line for line in self._lines if words in line), None)
                if found is not None:
                    return found
                left = deadline - time.monotonic()
                assert left > 0, f"no line with {words!r} within {within} s:\n" + "\n".join(self._lines)
                assert not self._ended, f"it ended without a line with {words!r}:\n" + "\n".join(self._lines)
                self._news.wait(left)

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.popen.kill()
        self.popen.wait()

    def end(self, within: float = WITHIN) -> int:
        """Wait for its end; returns its exit status."""
        status = self.popen.wait(within)
        self._reader.join(within)
        return status

    def _read(self) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout as output:
            for line in output:
                with self._news:
                    self._lines.append(line.decode(errors="replace").rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


@dataclass
class Site:
    """A folder with a stack file, the data of its runs, and the ledgers of its services."""

    folder: Path
    environ: Mapping[str, str]
    stack: str = "small"
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: list[Dev] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for run in self.runs:
            run.kill()
        self.kill_consul()
        for pids in self.running().values():
            for pid in pids:
                _kill(pid)

    @property
    def file(self) -> Path:
        return self.folder / "stack.yaml"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def log_file(self) -> Path:
        return self.data_dir / "citadel.log"

    # --- the stack ----------------------------------------------------------------------------------------------

    def tiny(self, name: str, *needs: str, delay: float = 0.03, **fields: Any) -> int:
        """Add a tiny service that listens after ``delay`` seconds; returns its port."""
        port = free_port()
        command = [sys.executable, "-S", "-E", str(TINY), str(port), str(delay), str(self.ledger(name))]
        self.add(name, command, *needs, port=port, **fields)
        return port

    def add(self, name: str, command: list[str], *needs: str, port: int, **fields: Any) -> None:
        """Add a service of any command, which is ready when it listens on ``port``."""
        self.services[name] = {
            "type": "test",
            "endpoint": f"tcp://127.0.0.1:{port}",
            "backend": {"kind": "process", "command": command, "env": _mark()},
            "checks": [{"tcp": f"127.0.0.1:{port}", "interval": "1s", "timeout": "1s"}],
            "depends_on": list(needs),
            "start_timeout": "30s",
            "stop_timeout": "10s",
            **fields,
        }

    def diamond(self) -> None:
        """``base`` below ``left`` and ``right`` below ``top``."""
        self.tiny("base")
        self.tiny("left", "base")
        self.tiny("right", "base")
        self.tiny("top", "left", "right")

    def smoke(self, **fields: Any) -> None:
        """The request for ``--once``."""
        (self.folder / "smoke.yaml").write_text(yaml.safe_dump(fields))

    # --- runs ---------------------------------------------------------------------------------------------------

    def dev(self, *arguments: str, **popen: Any) -> Dev:
        """Start ``citadel dev`` on the stack."""
        run = Dev(subprocess.Popen(self.command(*arguments), **{**self.popen_options(), **popen}))
        self.runs.append(run)
        return run

    def command(self, *arguments: str) -> list[str]:
        document = {"version": 1, "stack": self.stack, "defaults": {"nodes": ["n1"]}, "services": self.services}
        self.file.write_text(yaml.safe_dump(document, sort_keys=False))
        program = [sys.executable, "-m", "citadel_consul", "dev", str(self.file), "--data-dir", str(self.data_dir)]
        return [*program, *([] if "--api-bind" in arguments else ["--api-bind", "127.0.0.1:0"]), *arguments]

    def popen_options(self) -> dict[str, Any]:
        # A session of its own, so that what ends the tests' terminal does not decide what is tested.
        return {
            "env": dict(self.environ),
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "start_new_session": True,
        }

    def consul_pid(self) -> int | None:
        """The embedded Consul's pid if it lives."""
        try:
            pid = int(orjson.loads((self.data_dir / "consul" / "embedded.json").read_bytes())["process"]["pid"])
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if b"-data-dir=" in words else None

    def kill_consul(self) -> None:
        """SIGKILL for the embedded Consul, and wait until it is gone."""
        pid = self.consul_pid()
        if pid is not None:
            _kill(pid)
            wait_until(lambda: self.consul_pid() is None, "the end of Consul")

    # --- what really happened -----------------------------------------------------------------------------------

    def ledger(self, service: str) -> Path:
        return self.folder / f"{service}.lives"

    def lives(self, service: str) -> list[int]:
        """The pids of every process that ever ran the service, in the order of their starts."""
        ledger = self.ledger(service)
        return [int(line.split()[1]) for line in ledger.read_text().splitlines()] if ledger.exists() else []

    def running(self) -> dict[str, list[int]]:
        """The processes of each tiny service that run now."""
        return {name: [pid for pid in self.lives(name) if self._is_ours(pid)] for name in self.services}

    def chronicle(self) -> list[Entry]:
        """What the node agents wrote down, oldest first."""
        paths = (self.data_dir / "state" / self.stack).glob("*/history.jsonl")
        return sorted((entry for path in paths for entry in read_chronicle(path)), key=lambda entry: entry.at)

    def _is_ours(self, pid: int) -> bool:
        try:
            return str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False


def wait_until(condition: Callable[[], object], what: str, within: float = WITHIN) -> None:
    """Wait for ``condition``; fails the test if it does not come true."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.005)


def _mark() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name == "CITADEL_TEST_RUN"}


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
