"""Real processes of citadel around a real Consul, to be killed, paused and cut off by tests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from citadel_consul.agent.chronicle import Entry, read_chronicle
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.ports import LOOPBACK, Ports
from citadel_consul.core.model import Check, CheckKind, Edge, Instance, ProcessBackend, ServiceSpec, Stack
from citadel_consul.core.operation import Kind, Operation, Options
from citadel_consul.core.snapshot import Defaults, Snapshot
from citadel_consul.errors import CitadelError, ConsulUnavailable
from citadel_consul.store.applying import read_difference, write_difference
from citadel_consul.store.documents import Event
from citadel_consul.store.history import read_events
from citadel_consul.store.keys import Keys
from citadel_consul.store.reading import read_operation, read_state
from citadel_consul.store.requests import submit, wait_for_end

T = TypeVar("T")
ASK_SECONDS = 30.0
LAST_ENTRIES = 80
"""How much of a history a failing test shows."""
TINY = Path(__file__).with_name("tiny_service.py")
MARK = {name: value for name, value in os.environ.items() if name == "CITADEL_TEST_RUN"}
"""Services get a clean environment; with this they are found, and the run fails, if one is left behind."""


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def lasting_port() -> socket.socket:
    """A port that is kept for a service while it is down: the datagram socket that has it keeps other tests off.

    It is below the range that the kernel gives out to outgoing connections. Of a hundred ports that were merely free
    when they were chosen, and belong to services that start later, two are the same in every third run.
    """
    while True:
        port = Ports().with_free(["dns"]).dns  # one that is free for both streams and datagrams
        keeper = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            keeper.bind((LOOPBACK, port))
        except OSError:
            keeper.close()
        else:
            return keeper


@dataclass
class Process:
    """A process of citadel. Its log is a file, which a failing test shows."""

    popen: subprocess.Popen[bytes]
    log: Path
    api: str = ""

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.popen.kill()
        self.popen.wait()

    def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        self.popen.terminate()
        return self.popen.wait(15)

    def pause(self) -> None:
        self.popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None


@dataclass
class World:
    """One stack on one Consul, with its processes. Services are tiny real processes on loopback."""

    consul: str
    folder: Path
    stack: str
    environ: Mapping[str, str]
    processes: list[Process] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)
    keepers: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.alive:
                process.resume()
                process.kill()
        for entry in self.running_pids().values():
            for pid in entry:
                _kill(pid)
        for keeper in self.keepers:
            keeper.close()

    # --- processes ----------------------------------------------------------------------------------------------

    def orchestrator(self, node: str = "n1", *, consul: str | None = None, **settings: str) -> Process:
        """Start an orchestrator; ``settings`` are environment variables."""
        api = f"127.0.0.1:{free_port()}"
        process = self._spawn(
            f"orchestrator-{node}", ["orchestrator", "--node", node, "--api-bind", api], consul, settings
        )
        process.api = api
        return process

    def agent(self, node: str = "n1", *, consul: str | None = None, **settings: str) -> Process:
        """Start the node agent of ``node``."""
        return self._spawn(f"agent-{node}", ["agent", "--node", node, "--node-address", "127.0.0.1"], consul, settings)

    def _spawn(self, name: str, args: Sequence[str], consul: str | None, settings: dict[str, str]) -> Process:
        environ = {
            **self.environ,
            "CONSUL_HTTP_ADDR": consul or self.consul,
            "CITADEL_STACK": self.stack,
            "CITADEL_STATE_DIR": str(self.folder / "state"),
            "PYTHONFAULTHANDLER": "1",
            **settings,
        }
        log = self.folder / f"{name}-{len(self.processes)}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [sys.executable, "-m", "citadel_consul", *args], env=environ, stdout=output, stderr=output,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        process = Process(popen, log)
        self.processes.append(process)
        return process

    # --- the stack ----------------------------------------------------------------------------------------------

    def tiny(self, name: str, nodes: Sequence[str] = ("n1",), *, delay: float = 0.03, **fields: Any) -> ServiceSpec:
        """The spec of a tiny service, which listens on a port of its own after ``delay`` seconds."""
        port = self.port_of(name)
        command = (sys.executable, "-S", "-E", str(TINY), str(port), str(delay), str(self.folder / f"{name}.lives"))
        defaults: dict[str, Any] = {
            "type": "test",
            "backend": ProcessBackend(command=command, env=MARK),
            "endpoint": f"tcp://127.0.0.1:{port}",
            "checks": (Check("tcp", CheckKind.TCP, f"127.0.0.1:{port}", interval_seconds=1.0, timeout_seconds=1.0),),
            "start_timeout_seconds": 60.0,
            "stop_timeout_seconds": 5.0,
        }
        return ServiceSpec(name=name, nodes=tuple(nodes), **{**defaults, **fields})

    def port_of(self, name: str) -> int:
        """The port of a service, the same for as long as this world lasts."""
        if name not in self.ports:
            self.keepers.append(lasting_port())
            self.ports[name] = self.keepers[-1].getsockname()[1]
        return self.ports[name]

    def apply(self, specs: Iterable[ServiceSpec], edges: Iterable[Edge | tuple[str, str]] = ()) -> None:
        """Write a stack as ``citadel apply`` does."""
        all_edges = tuple(Edge(*e) if isinstance(e, tuple) else e for e in edges)
        stack = Stack(self.stack, {spec.name: spec for spec in specs}, all_edges)

        async def write(client: ConsulClient) -> None:
            await write_difference(client, await read_difference(client, stack, prune=False))

        self.ask(write)

    def request(self, kind: Kind, *targets: str, **options: Any) -> str:
        """Request an operation; returns its id."""

        async def write(client: ConsulClient) -> Operation:
            return await submit(
                client, Keys(self.stack), kind, targets or ("all",), Options(**options), requested_by="test"
            )

        return self.ask(write).id

    def end_of(self, operation_id: str, within: float = 180.0) -> Operation:
        """Wait for the end of an operation; fails the test if there is none."""

        async def wait(client: ConsulClient) -> Operation:
            return await wait_for_end(client, Keys(self.stack), operation_id, timeout_seconds=within)

        operation = self.ask(wait)
        assert operation.ended, f"operation {operation_id} has not ended: {operation}\n{self.logs()}"
        return operation

    def operate(self, kind: Kind, *targets: str, within: float = 180.0, **options: Any) -> Operation:
        """Request an operation and wait for its end."""
        return self.end_of(self.request(kind, *targets, **options), within)

    def operation(self, operation_id: str) -> Operation | None:
        async def read(client: ConsulClient) -> Operation | None:
            return await read_operation(client, Keys(self.stack), operation_id)

        return self.ask(read)

    def snapshot(self) -> Snapshot:
        """The stack as it lies in Consul now."""

        async def read(client: ConsulClient) -> Snapshot:
            return (await read_state(client, self.stack, Defaults())).snapshot()

        return self.ask(read)

    def leader(self) -> dict[str, Any] | None:
        """The record of the leader, with its ``session`` and ``epoch``; None if nobody leads."""

        async def read(client: ConsulClient) -> dict[str, Any] | None:
            entry = await client.kv_get(Keys(self.stack).leader)
            if entry is None or entry.session is None:
                return None
            return {**json.loads(entry.value), "session": entry.session, "epoch": entry.modify_index}

        return self.ask(read)

    def ask(self, work: Callable[[ConsulClient], Awaitable[T]]) -> T:
        """Run one piece of work with a client of its own; again if Consul does not answer, as on a starved machine."""

        async def once() -> T:
            async with ConsulClient(parse_address(self.consul)) as client:
                return await work(client)

        deadline = time.monotonic() + ASK_SECONDS
        while True:
            try:
                return asyncio.run(once())
            except ConsulUnavailable:
                if time.monotonic() > deadline:
                    raise

    # --- what really happened -----------------------------------------------------------------------------------

    def lives(self, service: str) -> list[int]:
        """The pids of every process that ever ran the service, in the order of their starts."""
        ledger = self.folder / f"{service}.lives"
        return [int(line.split()[1]) for line in ledger.read_text().splitlines()] if ledger.exists() else []

    def running_pids(self) -> dict[str, list[int]]:
        """The processes of each tiny service that run now."""
        ledgers = {path.stem: path for path in self.folder.glob("*.lives")}
        return {name: [pid for pid in self.lives(name) if runs(pid, path)] for name, path in ledgers.items()}

    def chronicle(self) -> list[Entry]:
        """What the node agents wrote down, of all nodes, oldest first."""
        paths = (self.folder / "state" / self.stack).glob("*/history.jsonl")
        return sorted((entry for path in paths for entry in read_chronicle(path)), key=lambda entry: entry.at)

    def logs(self) -> str:
        """The ends of all logs and histories, for a failing test to show."""
        texts = [f"--- {p.log.name}\n{p.log.read_text(errors='replace')[-3000:]}" for p in self.processes]
        rows = [
            f"{e.at:.3f} epoch {e.epoch} {e.service}@{e.node} {e.generation} {e.what} (pid {e.pid}) {e.detail}"
            for e in self.chronicle()[-LAST_ENTRIES:]
        ]
        return "\n".join([*texts, "--- histories of the nodes", *rows, "--- history of the stack", *self._events()])

    def _events(self) -> list[str]:
        async def read(client: ConsulClient) -> list[Event]:
            return (await read_events(client, Keys(self.stack)))[-LAST_ENTRIES:]

        try:
            found = self.ask(read)
        except CitadelError as error:
            return [str(error)]
        return [f"{event.at:.3f} epoch {event.epoch} {event.by}: {event.kind}: {event.message}" for event in found]

    def until(self, condition: Callable[[], object], within: float = 90.0, what: str = "") -> None:
        """Wait for ``condition``; fails the test with the logs if it does not come true."""
        began = time.monotonic()
        while not condition():
            waited = time.monotonic() - began
            assert waited < within, f"not within {within} s: {what or condition}\n{self.logs()}"
            # Most conditions ask Consul for all of a stack, on the cores that what is waited for needs as well.
            time.sleep(min(max(0.02, waited / 20), 0.25))

    def until_led(self, within: float = 90.0) -> dict[str, Any]:
        """Wait for a leader; returns its record."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [record] if (record := self.leader()) is not None else []
            return bool(found)

        self.until(look, within, "a leader")
        return found[0]


def chain(world: World, length: int, *, node: str = "n1") -> tuple[list[ServiceSpec], list[tuple[str, str]]]:
    """``s0 ← s1 ← …``: each depends on the one before."""
    specs = [world.tiny(f"s{n}", (node,)) for n in range(length)]
    return specs, [(f"s{n}", f"s{n - 1}") for n in range(1, length)]


def instances(services: Iterable[str], node: str = "n1") -> set[Instance]:
    """The instances of services on one node."""
    return {Instance(service, node) for service in services}


def runs(pid: int, ledger: Path) -> bool:
    """Whether ``pid`` is a process, not yet dead, of the tiny service that writes into ``ledger``."""
    try:
        return str(ledger).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
