"""The command line as a test uses it: words in; exit status and what was printed out."""

from __future__ import annotations

import base64
import json
import os
import queue
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from consul_process import ConsulProcess

from citadel_consul.cli.main import main


@dataclass(frozen=True)
class Result:
    """How a call ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"exit status {self.status}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


@dataclass
class CommandLine:
    """Calls ``citadel`` the way the console script does, in this process; :meth:`spawn` makes a real one of it."""

    consul: ConsulProcess
    stack: str
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    folder: Path

    def __post_init__(self) -> None:
        self.monkeypatch.setenv("COLUMNS", "200")
        self.join(self.stack, self.folder)

    def join(self, stack: str, folder: Path) -> None:
        """Work on another stack from now on, whose node agents keep their state below ``folder``."""
        self.stack, self.folder = stack, folder
        for name, value in self.environ.items():
            self.monkeypatch.setenv(name, value)

    @property
    def environ(self) -> Mapping[str, str]:
        return {
            "CONSUL_HTTP_ADDR": self.consul.address,
            "CITADEL_STACK": self.stack,
            "CITADEL_STATE_DIR": str(self.folder / "state"),
            "XDG_STATE_HOME": str(self.folder / "xdg"),
        }

    @property
    def prefix(self) -> str:
        return f"citadel/{self.stack}/"

    def __call__(self, *words: str) -> Result:
        """Call it, and return how it ended."""
        self.capsys.readouterr()
        self.monkeypatch.setattr(sys, "argv", ["citadel", *words])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        printed = self.capsys.readouterr()
        return Result(status, printed.out, printed.err)

    def ok(self, *words: str) -> Result:
        """As a call, and the exit status has to be 0."""
        result = self(*words)
        assert result.status == 0, f"citadel {' '.join(words)}: {result}"
        return result

    def json(self, *words: str) -> Any:
        """What it says as JSON; the exit status has to be 0."""
        return self.ok(*words, "-o", "json").json

    def spawn(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """A process of its own, with its output to be read."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-m", "citadel_consul", *words]
        return subprocess.Popen(command, **{**pipes, "env": {**os.environ, **self.environ}, **options})

    # --- the stack in Consul --------------------------------------------------------------------------------------

    def write(self, text: str, name: str = "stack.yaml") -> Path:
        """A stack file whose stack is that of the test."""
        path = self.folder / name
        path.write_text(f"version: 1\nstack: {self.stack}\n{text}")
        return path

    def apply(self, text: str) -> None:
        """Write a stack file into Consul."""
        self.ok("apply", str(self.write(text)))

    def put(self, key: str, value: object) -> None:
        """Write a key of the stack as ``consul kv put`` does: bytes as they are, anything else as JSON."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.consul.request("PUT", f"/v1/kv/{self.prefix}{key}", body)

    def get(self, key: str) -> Any:
        """The JSON at a key of the stack."""
        return json.loads(self.kv()[f"{self.prefix}{key}"][0])

    def kv(self) -> dict[str, tuple[bytes, int]]:
        """All keys of citadel, of any stack, each with its value and ModifyIndex."""
        try:
            entries = self.consul.request("GET", "/v1/kv/citadel/?recurse")
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 404:
                    raise
            return {}
        return {e["Key"]: (base64.b64decode(e["Value"] or ""), e["ModifyIndex"]) for e in entries}

    def own_kv(self) -> dict[str, tuple[bytes, int]]:
        """As :meth:`kv`, of the test's stack only."""
        return {key: value for key, value in self.kv().items() if key.startswith(self.prefix)}


class Lines:
    """The lines that a process prints, none of which is waited for without end. It is ended with the block."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._arrived: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self._reader.join()
        self.process.communicate()

    def next(self, within: float = 20.0) -> str:
        """The next line, without its end."""
        return self._arrived.get(timeout=within)

    def until(self, text: str, within: float = 20.0) -> str:
        """The next line that holds ``text``."""
        while text not in (line := self.next(within)):
            continue
        return line

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._arrived.put(line.rstrip("\n"))


THREE = """
defaults:
  nodes: [n1]
  type: test
  backend: {command: [sleep, 1000]}
services:
  base: {}
  middle: {depends_on: [base]}
  top: {depends_on: [middle]}
"""
"""Three services in a row, which are not meant to be started."""
