"""Services with moods in a real world, and what tests of recovery ask about them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_world import MARK, World

from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.incident import Incident, IncidentState
from citadel_consul.core.model import Check, CheckKind, ProcessBackend, RecoveryPolicy, ServiceSpec
from citadel_consul.core.operation import Kind, Operation, OperationState
from citadel_consul.core.snapshot import Hold
from citadel_consul.store.documents import Event
from citadel_consul.store.history import read_events
from citadel_consul.store.holds import remove_hold, write_hold
from citadel_consul.store.keys import Keys

SERVICE = Path(__file__).with_name("moody_service.py")
INTERVAL_SECONDS = 0.5
TIMEOUT_SECONDS = 1.5
"""Longer than the interval: a service that waits for its turn on a busy machine is not to be taken for a hung one."""


@dataclass
class Ward:
    """A real world with moody services; roles are started with a short delay between attempts."""

    world: World

    def spec(self, name: str, nodes: tuple[str, ...] = ("n1",), **fields: Any) -> ServiceSpec:
        """A moody service that is asked twice a second. Policy fields go into its recovery policy."""
        port = self.world.port_of(name)
        policy = {key: fields.pop(key) for key in list(fields) if key in RecoveryPolicy.__dataclass_fields__}
        policy.setdefault("delay_seconds", 0.3)
        command = (sys.executable, "-S", "-E", str(SERVICE), str(port), str(self._ledger(name)), str(self._mood(name)))
        defaults: dict[str, Any] = {
            "type": "test",
            "backend": ProcessBackend(command=command, env=MARK, reload_signal="SIGHUP"),
            "endpoint": f"http://127.0.0.1:{port}",
            "checks": (self.check(name),),
            "start_timeout_seconds": 60.0,
            "stop_timeout_seconds": 2.0,
        }
        return ServiceSpec(name=name, nodes=nodes, recovery=RecoveryPolicy(**policy), **{**defaults, **fields})

    def check(self, name: str, interval_seconds: float = INTERVAL_SECONDS) -> Check:
        """The check of a service."""
        url = f"http://127.0.0.1:{self.world.port_of(name)}/health"
        return Check("http", CheckKind.HTTP, url, interval_seconds=interval_seconds, timeout_seconds=TIMEOUT_SECONDS)

    def mood(self, mood: str, *names: str) -> None:
        """Have services answer so from now on."""
        for name in names:
            fresh = self._mood(name).with_suffix(".new")
            fresh.write_text(mood)
            fresh.replace(self._mood(name))

    def begin(self, *, nodes: Iterable[str] = ("n1",), **settings: str) -> None:
        """Start a leader, with ``settings`` in its environment, and the node agents, and the whole stack."""
        self.world.orchestrator(**settings)
        for node in nodes:
            self.world.agent(node)
        self.up()

    def up(self) -> None:
        operation = self.world.operate(Kind.STARTUP)
        assert operation.state is OperationState.SUCCEEDED, f"{operation}\n{self.world.logs()}"

    def kill(self, *names: str, end: Iterable[str] = ()) -> None:
        """SIGKILL what runs of services, all at once; just before, have what runs of ``end`` exit by itself."""
        running = self.world.running_pids()
        for number, services in ((signal.SIGTERM, end), (signal.SIGKILL, names)):
            for pid in [pid for name in services for pid in running.get(name, ())]:
                os.kill(pid, number)

    def end(self, *names: str) -> None:
        """Have what runs of services exit by itself, with a status."""
        self.kill(end=names)

    def lives(self, *names: str) -> dict[str, int]:
        """How often each service was started."""
        return {name: len(self.world.lives(name)) for name in names}

    def reloads(self, name: str) -> int:
        path = Path(f"{self._ledger(name)}.reloads")
        return len(path.read_text().splitlines()) if path.exists() else 0

    def incident(self, name: str) -> Incident | None:
        return self.world.snapshot().incidents.get(name)

    def until_incident(self, name: str, state: IncidentState, within: float = 120.0) -> Incident:
        """Wait until the incident of a service is in ``state``."""

        def there() -> bool:
            found = self.incident(name)
            return found is not None and found.state is state

        self.world.until(there, within, f"incident of {name} {state}")
        found = self.incident(name)
        assert found is not None
        return found

    def healthy(self, *names: str) -> bool:
        """Whether all instances of services are ready and Consul says nothing against them."""
        snapshot = self.world.snapshot()
        wanted = [instance for name in names for instance in snapshot.instances(name)]
        return all(
            (seen := snapshot.observed.get(i)) is not None and seen.phase == "ready" and i not in snapshot.checks
            for i in wanted
        )

    def until_healthy(self, *names: str, within: float = 120.0) -> None:
        self.world.until(lambda: self.healthy(*names), within, f"{', '.join(names)} healthy")

    def events(self, *kinds: str) -> list[Event]:
        """What was put into the history, of some kinds."""

        async def read(client: ConsulClient) -> list[Event]:
            return await read_events(client, Keys(self.world.stack))

        return [event for event in self.world.ask(read) if event.kind in kinds]

    def automatic(self) -> list[Operation]:
        """The operations that citadel asked for itself."""
        return [operation for operation in self.world.snapshot().operations if operation.automatic]

    def hold(self, scope: str, name: str = "", *, seconds: float | None = None, maintenance: bool = False) -> None:
        until = None if seconds is None else time.time() + seconds
        hold = Hold(scope, name, by="op", until=until, maintenance=maintenance)
        self.world.ask(lambda client: write_hold(client, Keys(self.world.stack), hold))

    def unhold(self, scope: str, name: str = "") -> None:
        self.world.ask(lambda client: remove_hold(client, Keys(self.world.stack), scope, name))

    def found_by_clients(self, name: str) -> int:
        """How many instances of a service a client of Consul is told of."""

        async def read(client: ConsulClient) -> int:
            return len((await client.health_service(name, passing=True)).value)

        return self.world.ask(read)

    def stays(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Fail the test unless ``condition`` holds all the time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert condition(), f"{what}\n{self.world.logs()}"
            time.sleep(0.1)

    def _ledger(self, name: str) -> Path:
        return self.world.folder / f"{name}.lives"

    def _mood(self, name: str) -> Path:
        return self.world.folder / f"{name}.mood"
