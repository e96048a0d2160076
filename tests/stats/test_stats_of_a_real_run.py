"""The figures of a real run against its history: processes, a death, a failover, a recovery that fails, a shutdown."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
import told_history
from real_world import MARK, World

from citadel_consul.core.incident import STACK
from citadel_consul.core.model import Instance, ProcessBackend, RecoveryPolicy, ServiceSpec
from citadel_consul.core.operation import Kind, Operation, OperationState
from citadel_consul.core.stats import ServiceStats, Standing
from citadel_consul.store.keys import Keys
from citadel_consul.store.reading import read_operation

pytestmark = [pytest.mark.consul, pytest.mark.long]
API = "/api/v1/orchestrator"
TOLERANCE_SECONDS = 0.25
"""An agent dates what it sees, a leader what it orders; on a busy machine some milliseconds lie between."""


def _operations(real: World) -> list[Operation]:
    """All operations of the run, with their steps."""
    heads = real.snapshot().operations

    async def read(client: Any) -> list[Operation | None]:
        return [await read_operation(client, Keys(real.stack), head.id) for head in heads]

    return [operation for operation in real.ask(read) if operation is not None]


def _ready(real: World, service: str, starts: int) -> bool:
    seen = real.snapshot().observed.get(Instance(service, "n1"))
    return seen is not None and seen.phase == "ready" and seen.starts == starts


def _stack(real: World) -> dict[str, ServiceSpec]:
    left_alone = RecoveryPolicy(enabled=False)
    specs = [real.tiny("db"), real.tiny("web"), real.tiny("extra", critical=False, recovery=left_alone)]
    job = ServiceSpec("job", "test", ("n1",), ProcessBackend(("/bin/true",), env=MARK), oneshot=True)
    return {one.name: one for one in [*specs, job]}


def _live(real: World, specs: dict[str, ServiceSpec]) -> str:
    """A run in which everything happens that is counted; returns the address of the API that answers after it."""
    first = real.orchestrator("o1")
    real.until_led()
    second = real.orchestrator("o2")
    real.agent()
    real.apply(specs.values(), [("web", "db")])
    real.until(lambda: real.snapshot().agents, what="an agent")
    assert real.operate(Kind.STARTUP).state is OperationState.SUCCEEDED
    time.sleep(0.6)
    os.kill(real.lives("db")[-1], signal.SIGKILL)
    real.until(lambda: _ready(real, "db", 2), what="the recovery of db")
    epoch = real.until_led()["epoch"]
    time.sleep(0.4)
    first.kill()
    real.until(lambda: (real.leader() or {"epoch": epoch})["epoch"] > epoch, what="another leader")
    time.sleep(0.3)
    assert real.operate(Kind.RESTART, "web").state is OperationState.SUCCEEDED
    broken = replace(specs["extra"], backend=ProcessBackend(("/bin/false",), env=MARK))
    real.apply([broken])
    time.sleep(0.3)  # until the node agent has the new spec
    assert real.operate(Kind.RECOVER, "extra").state is OperationState.FAILED
    time.sleep(0.5)
    return second.api


def _metrics(api: str) -> Any:
    with httpx.Client(base_url=f"http://{api}", trust_env=False, timeout=20.0) as http:
        answer = http.get(f"{API}/metrics")
        answer.raise_for_status()
        return answer.json()["orchestration_metrics"]


def _near(value: float) -> Any:
    return pytest.approx(value, abs=TOLERANCE_SECONDS)


def _sums(stats: ServiceStats, now: float) -> Mapping[str, float]:
    return {str(word): value for word, value in stats.sums_at(now).items()}


def test_every_figure_is_what_the_history_says(real: World) -> None:
    api = _live(real, _stack(real))
    while_up = _metrics(api)["health_monitoring"]
    assert while_up["total_health_checks"] >= 2
    assert while_up["failed_health_checks"] == 0
    real.operate(Kind.SHUTDOWN)
    time.sleep(0.3)
    told, now = _metrics(api), time.time()  # the last thing that an answer looks at is the clock

    chronicle, operations = real.chronicle(), _operations(real)
    turned = told_history.turnings(chronicle, operations)
    services = told_history.seconds(turned, now)
    stats = real.snapshot().stats
    for name in ("db", "web", "extra"):
        found = _sums(stats[name], now)
        assert found["up"] == _near(services[name]["up"]), name
        assert found["unplanned"] == _near(services[name]["unplanned"]), name
    assert services["extra"]["unplanned"] > 0.4
    assert services["web"]["unplanned"] == 0

    stack = told_history.stack_seconds(turned, ("db", "web"), now)
    uptime = told["system_uptime"]
    assert uptime["total_uptime_seconds"] == _near(stack["up"])
    assert uptime["planned_downtime_seconds"] == _near(stack["planned"])
    assert uptime["unplanned_downtime_seconds"] == _near(stack["unplanned"])
    total = sum(uptime[key] for key in uptime if key != "availability_percentage")
    assert uptime["availability_percentage"] == pytest.approx(100 * uptime["total_uptime_seconds"] / total, abs=0.1)

    shares = {name: 100 * s["up"] / (s["up"] + s["unplanned"]) for name, s in services.items() if name != "job"}
    reliability = told["service_reliability"]
    assert reliability["average_uptime_percentage"] == pytest.approx(sum(shares.values()) / 3, abs=3.0)
    assert reliability["most_reliable_service"] == max(shares, key=shares.__getitem__) == "web"
    assert reliability["least_reliable_service"] == min(shares, key=shares.__getitem__) == "extra"
    assert reliability["total_service_restarts"] == told_history.restarts(chronicle)
    recoveries = [op for op in operations if op.kind is Kind.RECOVER]
    assert reliability["successful_recoveries"] == sum(op.state is OperationState.SUCCEEDED for op in recoveries) == 1
    assert reliability["failed_recoveries"] == sum(op.state is OperationState.FAILED for op in recoveries) == 1

    (startup,) = [op for op in operations if op.kind is Kind.STARTUP]
    assert startup.started_at is not None
    assert startup.ended_at is not None
    took = round(startup.ended_at - startup.started_at, 3)
    assert told["startup_performance"] == {
        "average_startup_time_seconds": took,
        "fastest_startup_seconds": took,
        "slowest_startup_seconds": took,
        "startup_success_rate": 100.0,
    }


def test_a_failover_neither_loses_nor_doubles_time(real: World) -> None:
    specs = _stack(real)
    first = real.orchestrator("o1")
    real.until_led()
    real.orchestrator("o2")
    real.agent()
    real.apply([specs["db"], specs["web"]], [("web", "db")])
    real.until(lambda: real.snapshot().agents, what="an agent")
    real.operate(Kind.STARTUP)
    before, at = real.snapshot().stats, time.time()
    epoch = real.until_led()["epoch"]
    first.pause()  # it is deposed, and comes back when another one leads
    real.until(lambda: (real.leader() or {"epoch": epoch})["epoch"] > epoch, what="another leader")
    os.kill(real.lives("db")[-1], signal.SIGKILL)
    real.until(lambda: _ready(real, "db", 2), what="the recovery of db")
    first.resume()
    real.until(lambda: "no longer the leader" in first.log.read_text(), what="the old leader to notice")
    real.operate(Kind.RESTART, "web")
    after, now = real.snapshot().stats, time.time()
    for name in ("db", "web", STACK):
        passed = sum(after[name].sums_at(now).values()) - sum(before[name].sums_at(at).values())
        assert passed == pytest.approx(now - at, abs=0.001), name
    assert after["db"].recoveries_succeeded == 1
    assert after["db"].restarts == after["web"].restarts == 1
    assert after["db"].failures == 1
    assert after["web"].sums_at(now)[Standing.UNPLANNED] == 0


def test_stats_deleted_by_hand_begin_anew_and_stop_nothing(real: World) -> None:
    real.orchestrator("o1")
    real.until_led()
    real.agent()
    real.apply([_stack(real)["db"]])
    real.until(lambda: real.snapshot().agents, what="an agent")
    real.operate(Kind.STARTUP)

    async def delete(client: Any) -> None:
        await client.kv_delete(Keys(real.stack).stats_of("db"))

    time.sleep(1.0)
    deleted_at = time.time()
    real.ask(delete)
    assert "db" not in real.snapshot().stats
    assert real.operate(Kind.RESTART, "db").state is OperationState.SUCCEEDED
    real.until(lambda: "db" in real.snapshot().stats, what="new stats")
    now = time.time()
    assert sum(real.snapshot().stats["db"].sums_at(now).values()) < now - deleted_at


def test_an_unreadable_account_is_reported_and_the_rest_is_counted(real: World) -> None:
    real.orchestrator("o1")
    real.until_led()
    real.agent()
    specs = _stack(real)
    real.apply([specs["db"], specs["extra"]])
    real.until(lambda: real.snapshot().agents, what="an agent")

    async def spoil(client: Any) -> None:
        await client.kv_put(Keys(real.stack).stats_of("gone"), b"{")

    real.ask(spoil)
    assert real.operate(Kind.STARTUP).state is OperationState.SUCCEEDED
    snapshot = real.snapshot()
    assert [fault.key for fault in snapshot.faults] == [Keys(real.stack).stats_of("gone")]
    assert {"db", "extra"} <= snapshot.stats.keys()
