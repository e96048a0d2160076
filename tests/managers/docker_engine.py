"""The Docker engine that the tests use, looked at past the backend; and one of their own, which they may break."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from busybox_image import NoImage, ensure_image

LABEL = "citadel.test"
START_SECONDS = 60.0


def engine_host() -> str:
    """Where the machine's engine is."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def client(host: str | None = None) -> httpx.Client:
    """A plain client of an engine (of the machine's, or of the one at ``host``)."""
    address = host or engine_host()
    scheme, _, rest = address.partition("://")
    if scheme == "unix":
        # No connection is kept: an engine that was restarted meanwhile would make the next call fail.
        transport = httpx.HTTPTransport(uds=rest, limits=httpx.Limits(max_keepalive_connections=0))
        return httpx.Client(transport=transport, base_url="http://docker", timeout=120.0)
    return httpx.Client(base_url=f"http://{rest}", timeout=120.0)


def why_not(engine: httpx.Client) -> str | None:
    """Why containers cannot be run by this engine; ``None`` if they can."""
    try:
        version = engine.get("/version").json()["Version"]
        image = ensure_image(engine)
        body = {"Image": image, "Cmd": ["/bin/true"], "HostConfig": {"NetworkMode": "none"}}
        made = engine.post("/containers/create", json=body)
        made.raise_for_status()
        try:
            started = engine.post(f"/containers/{made.json()['Id']}/start")
            return None if started.is_success else f"engine {version} cannot start a container: {started.text}"
        finally:
            engine.delete(f"/containers/{made.json()['Id']}", params={"force": "1"})
    except NoImage as error:
        return str(error)
    except httpx.HTTPError as error:
        return f"no Docker engine answers here: {error}"


class Containers:
    """The containers of one test: made, looked at and removed without the backend."""

    def __init__(self, engine: httpx.Client, run: str) -> None:
        self.engine = engine
        self.run = run
        self.image = ensure_image(engine)

    def create(
        self,
        name: str,
        *command: str,
        labels: Mapping[str, str] | None = None,
        host: Mapping[str, object] | None = None,
        **config: object,
    ) -> str:
        """Make a container of this name; returns its id."""
        body = {
            "Image": self.image,
            "Cmd": list(command),
            "Labels": {LABEL: self.run} | dict(labels or {}),
            "HostConfig": {"NetworkMode": "none"} | dict(host or {}),
        } | config
        answer = self.engine.post("/containers/create", params={"name": name}, json=body)
        answer.raise_for_status()
        return str(answer.json()["Id"])

    def start(self, container: str) -> None:
        self.engine.post(f"/containers/{container}/start").raise_for_status()

    def stop(self, container: str) -> None:
        self.engine.post(f"/containers/{container}/stop", params={"t": "0"}).raise_for_status()

    def restart(self, container: str) -> None:
        self.engine.post(f"/containers/{container}/restart", params={"t": "0"}).raise_for_status()

    def kill(self, container: str, name: str = "SIGKILL") -> None:
        self.engine.post(f"/containers/{container}/kill", params={"signal": name}).raise_for_status()

    def pause(self, container: str) -> None:
        self.engine.post(f"/containers/{container}/pause").raise_for_status()

    def remove(self, container: str) -> None:
        self.engine.delete(f"/containers/{container}", params={"force": "1", "v": "1"})

    def inspect(self, container: str) -> dict[str, object] | None:
        """What the engine says of a container; ``None`` if there is none."""
        answer = self.engine.get(f"/containers/{container}/json")
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        value = answer.json()
        assert isinstance(value, dict)
        return value

    def state(self, container: str) -> dict[str, object]:
        found = self.inspect(container)
        assert found is not None
        state = found["State"]
        assert isinstance(state, dict)
        return state

    def lines(self, container: str) -> list[str]:
        """What a container has written since it was made."""
        answer = self.engine.get(f"/containers/{container}/logs", params={"stdout": "1", "stderr": "1"})
        if answer.status_code == 404:
            return []
        data, lines = answer.content, []
        while len(data) >= 8:  # each part has a header of 8 bytes that ends with its length
            size = int.from_bytes(data[4:8], "big")
            lines += data[8 : 8 + size].decode().splitlines()
            data = data[8 + size :]
        return lines

    def of_project(self, project: str) -> list[str]:
        """The ids of the containers of a compose project."""
        return self._listed(f"com.docker.compose.project={project}")

    def clear(self, *projects: str) -> None:
        """Remove everything that bears the label of this run, and what compose made for it."""
        for container in (*self._listed(f"{LABEL}={self.run}"), *(c for p in projects for c in self.of_project(p))):
            self.remove(container)

    def _listed(self, label: str) -> list[str]:
        answer = self.engine.get("/containers/json", params={"all": "1", "filters": json.dumps({"label": [label]})})
        return [found["Id"] for found in answer.json()]


class PrivateEngine:
    """A Docker engine of the test's own, without networks: it can be killed, frozen and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.host = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for mount in _mounts_below(self.folder):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        words = ["dockerd", "--host", self.host, "--data-root", str(self.folder / "data")]
        words += ["--exec-root", str(self.folder / "exec"), "--pidfile", str(self.folder / "dockerd.pid")]
        words += ["--bridge", "none", "--iptables=false", "--ip6tables=false", "--log-level", "warn"]
        with (self.folder / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2.0)
            try:
                connection.connect(str(self.socket))
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 " in connection.recv(64)
            except OSError:
                return False

    def signal(self, number: int) -> None:
        """Send a signal to the engine itself."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Have it, and the containerd that it started, die without a word. The containers run on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._end_containerd()

    def stop(self) -> None:
        """Have it end in order, with all its containers."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._end_containerd()
        self._process = None

    def _end_containerd(self) -> None:
        """End what a killed engine leaves, by its number, and remove what the next one would stumble over."""
        record = self.folder / "exec" / "containerd" / "containerd.pid"
        if record.exists():
            pid = int(record.read_text())
            if Path(f"/proc/{pid}/cmdline").exists() and b"containerd" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        for name in ("containerd.pid", "containerd.sock", "containerd.sock.ttrpc"):
            record.with_name(name).unlink(missing_ok=True)

    def log(self) -> str:
        return (self.folder / "dockerd.log").read_text(errors="replace")[-4000:]


def _mounts_below(folder: Path) -> list[str]:
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted((point for point in points if point.startswith(str(folder))), reverse=True)
