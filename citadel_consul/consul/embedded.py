"""A Consul server of our own on this machine: what ``citadel dev`` runs on.

It is a real server with one member that keeps its data on disk, not ``consul agent -dev``, whose memory dies with it:
whoever kills ``citadel dev``, or the machine, finds the whole stack in KV again afterwards. For the same reason Consul
runs in a session of its own and is not ended by what ends its starter: a new starter finds the survivor and goes on
with it. It finds it by the record in the data directory, or, if the starter died between the start and the record, in
the process table by its data directory, so that two servers never open the same data.

Everything listens on loopback. There are no ACLs: who may reach loopback may do everything, script checks included.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn, Self

import httpx
import orjson

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.ports import LOOPBACK, OFF, Ports
from citadel_consul.consul.process import ProcessIdentity, RunningProcess, find_by_argument
from citadel_consul.consul.readiness import is_ready
from citadel_consul.consul.record import Record
from citadel_consul.consul.server_config import server_config
from citadel_consul.consul.server_log import ServerLog
from citadel_consul.errors import ConsulUnavailable, InvalidInput, Problem, Refused

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.02
_BIND_ATTEMPTS = 3


class _PortTaken(ConsulUnavailable):
    """Consul found a port taken that was free a moment ago."""


class EmbeddedConsul:
    """One Consul server with its data in ``data_dir``, for the time of an ``async with``.

    ``ports``: exactly these, or an error. Without: those of the last run, else Consul's own, and free ones in place of
    any that is taken. ``dns`` and ``ui`` switch these off. ``dashboard`` is where each service in the UI links to, if
    the Consul is new enough for that. ``config_files`` are given to Consul after ours, so they override. ``node`` is
    the node's name in the catalog.

    Entering it raises InvalidInput (a given port is taken; data of a newer Consul), Refused (another process uses this
    ``data_dir``), ConsulUnavailable (Consul did not start, with the end of its log).
    """

    def __init__(
        self,
        data_dir: Path,
        binary: ConsulBinary,
        *,
        node: str = "local",
        ui: bool = True,
        dns: bool = True,
        dashboard: str | None = None,
        ports: Ports | None = None,
        config_files: Sequence[Path] = (),
        ready_timeout_seconds: float = 30.0,
        stop_timeout_seconds: float = 10.0,
    ) -> None:
        self.data_dir = data_dir.resolve()  # one name for it, because the process table is searched for it
        self.binary = binary
        self.node = node
        self.reused = False
        self.ports = ports or Ports()
        self._given_ports = ports
        self._ui = ui
        self._dns = dns
        self._dashboard = dashboard
        self._config_files = [path.absolute() for path in config_files]
        self._ready_timeout_seconds = ready_timeout_seconds
        self._stop_timeout_seconds = stop_timeout_seconds
        self._process: RunningProcess | None = None
        self._lock: IO[str] | None = None
        self._log = ServerLog(self.data_dir / "consul.log")

    @property
    def address(self) -> str:
        """Host and port of the HTTP API, as ``CONSUL_HTTP_ADDR`` has it."""
        return f"{LOOPBACK}:{self.ports.http}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def ui_url(self) -> str | None:
        """Where a browser finds the UI; ``None`` if it is off."""
        return f"{self.url}/ui/" if self._ui else None

    @property
    def log_file(self) -> Path:
        """Where Consul's own output goes."""
        return self._log.path

    @property
    def pid(self) -> int:
        """The pid of the running server. Raises ConsulUnavailable when it was not started."""
        return self._running.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Have the server running and ready, by reuse of one that was left over if it was started in the same way."""
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _lock_directory(self.data_dir)
        try:
            record = Record.load(self.data_dir)
            self._check_input(record)
            self._process = self._survivor(record)
            if self._process is not None:
                self.reused = await self._take_over(self._process, record)
            if not self.reused:
                await self._launch(record)
        except BaseException:
            self._release(kill=True)
            raise

    async def stop(self) -> None:
        """End the server; it stays a member of its own cluster, and finds its data again."""
        try:
            if self._process is not None:
                await self._process.stop(self._stop_timeout_seconds)
        finally:
            self._release(kill=False)

    async def supervise(self) -> NoReturn:
        """Start the server again whenever it ends by itself. Runs until it is cancelled, as a task beside the work."""
        loop = asyncio.get_running_loop()
        pause_seconds = 0.0
        while True:
            since = loop.time()
            await self._running.wait()
            # A server that dies at once gets longer and longer pauses; one that stood for a while none.
            pause_seconds = 0.0 if loop.time() - since > 30 else min(10.0, pause_seconds * 2 + 0.1)
            log.warning("Consul ended by itself (exit %s); starting it again", self._running.exit_status)
            await asyncio.sleep(pause_seconds)
            try:
                await self._launch(Record.load(self.data_dir))
            except (ConsulUnavailable, InvalidInput) as error:
                log.error("Consul does not start again: %s", error)  # noqa: TRY400  the message says it all

    @property
    def _running(self) -> RunningProcess:
        if self._process is None:
            raise ConsulUnavailable("the embedded Consul was not started")
        return self._process

    def _release(self, *, kill: bool) -> None:
        if self._process is not None:
            if kill:
                self._process.kill()
            self._process.close()
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _survivor(self, record: Record | None) -> RunningProcess | None:
        """A server on our data that its starter left behind."""
        if record is not None and (survivor := _adopt(record.process)):
            return survivor
        return _adopt(find_by_argument(self._data_argument))

    async def _take_over(self, survivor: RunningProcess, record: Record | None) -> bool:
        """Whether the survivor serves; if not, it is ended: what it was told differs, or nobody knows its ports."""
        if record is not None and record.process == survivor.identity:
            self.ports = self._given_ports or self._wanted(record.ports)
            if record.fingerprint == self._fingerprint():
                await self._until_ready(self._log.size)
                return True
        log.info("A Consul with other settings runs on %s (pid %d): ending it", self.data_dir, survivor.pid)
        await survivor.stop(self._stop_timeout_seconds)
        survivor.close()
        self._process = None
        return False

    async def _launch(self, record: Record | None) -> None:
        for attempt in range(1, _BIND_ATTEMPTS + 1):
            self._check_given_ports()
            self.ports = self._given_ports or self._choose_ports(record)
            try:
                await self._launch_once()
            except _PortTaken:
                # Somebody bound a port between our look and Consul's: look again.
                if attempt == _BIND_ATTEMPTS:
                    raise
            else:
                return

    async def _launch_once(self) -> None:
        begin = self._spawn()
        try:
            await self._until_ready(begin)
        except BaseException:
            self._running.kill()
            raise

    def _choose_ports(self, record: Record | None) -> Ports:
        preferred = self._wanted(record.ports if record is not None else Ports())
        taken = preferred.taken()
        if taken:
            log.info("In use, so Consul gets other ports for them: %s", taken)
        return preferred.with_free(taken)

    def _wanted(self, ports: Ports) -> Ports:
        """``ports``, with DNS on or off as it is wanted now."""
        if not self._dns:
            return replace(ports, dns=OFF)
        return replace(ports, dns=Ports().dns) if ports.dns == OFF else ports

    def _check_input(self, record: Record | None) -> None:
        problems = [
            Problem(str(path), "there is no such file", "give the path of a Consul configuration file")
            for path in self._config_files
            if not path.is_file()
        ]
        if record is not None and record.release > self.binary.release:
            problems.append(
                Problem(
                    str(self.data_dir),
                    f"its data was written by Consul {record.version}, and {self.binary.path} is {self.binary.version}",
                    "use that version, or remove the directory to begin anew",
                )
            )
        if problems:
            raise InvalidInput(problems)

    def _check_given_ports(self) -> None:
        taken = self._given_ports.taken() if self._given_ports is not None else {}
        if taken:
            raise InvalidInput(
                Problem(
                    f"ports.{name}",
                    f"port {port} on {LOOPBACK} is in use",
                    f"end what uses it (`ss -ltnup 'sport = :{port}'` tells), or choose another port",
                )
                for name, port in taken.items()
            )

    def _spawn(self) -> int:
        """Start the process and put it on record; return where its output begins in the log."""
        if self._process is not None:
            self._process.close()
            self._process = None
        self._config_path.write_bytes(self._config())
        self._log.rotate()
        with self.log_file.open("ab") as output:
            begin = output.tell()
            child = subprocess.Popen(
                self._command(),
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.reused = False
        self._process = RunningProcess.of_child(child)
        Record(self.binary.version, self.ports, self._process.identity, self._fingerprint()).save(self.data_dir)
        return begin

    async def _until_ready(self, log_begin: int) -> None:
        """Until this server leads and the catalog shows it healthy: from then on sessions and locks can be taken."""
        try:
            async with (
                asyncio.timeout(self._ready_timeout_seconds),
                httpx.AsyncClient(base_url=self.url, timeout=2.0, trust_env=False) as client,
            ):
                while not await is_ready(client, self.node, self._server_dir):
                    if not self._running.alive:
                        raise self._ended_early(log_begin)
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise ConsulUnavailable(
                f"Consul was not ready within {self._ready_timeout_seconds:g} s. {self._log.complaint(log_begin)}"
            ) from None

    def _ended_early(self, log_begin: int) -> ConsulUnavailable:
        # Consul has one exit status for everything that goes wrong; only its log tells what.
        kind = _PortTaken if "address already in use" in self._log.since(log_begin) else ConsulUnavailable
        return kind(f"Consul ended before it was ready. {self._log.complaint(log_begin)}")

    @property
    def _config_path(self) -> Path:
        return self.data_dir / "consul.json"

    @property
    def _server_dir(self) -> Path:
        return self.data_dir / "data"

    @property
    def _data_argument(self) -> str:
        """The argument by which the process table shows whose server it is."""
        return f"-data-dir={self._server_dir}"

    def _command(self) -> list[str]:
        files = [self._config_path, *self._config_files]
        return [
            str(self.binary.path),
            "agent",
            self._data_argument,
            *(f"-config-file={path}" for path in files),
        ]

    def _config(self) -> bytes:
        config = server_config(self.binary.release, self.node, self.ports, ui=self._ui, dashboard=self._dashboard)
        return orjson.dumps(config, option=orjson.OPT_INDENT_2)

    def _fingerprint(self) -> str:
        """Sums up all that the server is told: whether one that runs can be used depends on it."""
        digest = hashlib.sha256(self._config())
        for part in self._command():
            digest.update(os.fsencode(part) + b"\0")
        for path in self._config_files:
            digest.update(path.read_bytes())
        return digest.hexdigest()


def _lock_directory(data_dir: Path) -> IO[str]:
    """The lock on ``data_dir``, held until it is closed or its holder dies. Raises Refused if it is held."""
    file = (data_dir / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise Refused(
            f"{data_dir} is in use by another process (pid {holder}); end that one, or choose another directory"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _adopt(identity: ProcessIdentity | None) -> RunningProcess | None:
    try:
        return RunningProcess(identity) if identity is not None else None
    except ProcessLookupError:
        return None
