"""The answers of health and recovery after a real run, against its history: nothing in them is taken on trust."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import httpx
import pytest
from moody import TIMEOUT_SECONDS, Ward
from real_world import World

from citadel_consul.agent.chronicle import Entry
from citadel_consul.core.model import Edge, OnRecovery
from citadel_consul.core.operation import Operation, StepAction

pytestmark = [pytest.mark.consul, pytest.mark.long]
API = "/api/v1/orchestrator"
SLOW_SECONDS = 0.3
EDGES = (
    Edge("api", "db", on_recovery=OnRecovery.RESTART),
    Edge("web", "api"),
    Edge("report", "db", on_recovery=OnRecovery.NOTIFY),
)
STEPS = ["stop_service", "check_dependencies", "restart_service", "verify_health", "notify_dependents"]
CLOCKS_SECONDS = 0.01
"""A node's moments are kept to the microsecond, an answer's to the millisecond."""


@pytest.fixture
def ward(real: World) -> Ward:
    """Everything that a service can be: a chain, one that is slow, one that warns, and one that is left dead."""
    ward = Ward(real)
    dead = ward.spec("dead", critical=False, enabled=False)
    names = ("db", "api", "web", "report", "slow", "warns")
    real.apply([*(ward.spec(name) for name in names), dead], EDGES)
    ward.mood(f"slow {SLOW_SECONDS}", "slow")
    ward.begin()
    return ward


@pytest.fixture
def api(ward: Ward) -> Iterator[httpx.Client]:
    (orchestrator,) = [process for process in ward.world.processes if process.api]
    with httpx.Client(base_url=f"http://{orchestrator.api}{API}", trust_env=False, timeout=60.0) as client:
        yield client


def last_words(ward: Ward) -> Mapping[str, Entry]:
    """The last that the node agent wrote down of each service."""
    return {entry.service: entry for entry in ward.world.chronicle() if entry.service}


def get(api: httpx.Client, path: str) -> Any:
    answer = api.get(path)
    answer.raise_for_status()
    return answer.json()


def words(told: Any) -> dict[str, str]:
    """The status of each service, in an answer of health."""
    return {name: service["status"] for name, service in told["service_health"].items()}


def test_the_answer_of_health_is_what_the_history_and_the_services_say(ward: Ward, api: httpx.Client) -> None:
    ward.mood("warning", "warns")
    ward.kill("dead")
    ward.world.until(lambda: last_words(ward)["dead"].what == "exited", what="the end of dead")
    expected = dict.fromkeys(("db", "api", "web", "report", "slow"), "healthy")
    expected |= {"warns": "degraded", "dead": "unhealthy"}
    ward.world.until(lambda: words(get(api, "/health")) == expected, what="Consul and the leader to know of both")
    time.sleep(1.1)  # what was measured is remembered for a second
    before = time.time()
    told = get(api, "/health")
    after = time.time()

    history = last_words(ward)
    ready = {name for name, entry in history.items() if entry.what == "ready"}
    assert ready == expected.keys() - {"dead"}
    assert words(told) == expected
    services = told["service_health"]
    for name, service in services.items():
        if name not in ready:
            assert (service["response_time_ms"], service["uptime_seconds"], service["health_score"]) == (
                None,
                None,
                0.0,
            )
            continue
        assert before - history[name].at - 0.05 <= service["uptime_seconds"] <= after - history[name].at + 0.05, name
        response = service["response_time_ms"]
        assert 0.0 < response < 1000 * TIMEOUT_SECONDS, name
        base = 75.0 if name == "warns" else 100.0
        lost = 0.25 * response / 1000 / TIMEOUT_SECONDS
        assert service["health_score"] == pytest.approx(base * (1 - lost), abs=0.051), name
    assert services["slow"]["response_time_ms"] >= 1000 * SLOW_SECONDS
    summary = told["health_summary"]
    healthy = [name for name, word in expected.items() if word == "healthy"]
    assert summary["health_score"] == round(100 * len(healthy) / len(expected), 1)
    assert summary["critical_services_healthy"] is False, "warns is critical"
    assert summary["overall_status"] == "degraded"


def test_the_answer_of_a_recovery_is_what_the_history_says(ward: Ward, api: httpx.Client) -> None:
    began = time.time()
    answer = api.post("/recover", json={"service": "db", "reason": "trial"})
    assert answer.status_code == 200, answer.text
    told = answer.json()["recovery_result"]
    operation = ward.world.operation(told["operation_id"])
    assert operation is not None
    assert operation.started_at is not None
    assert operation.ended_at is not None
    assert began < operation.started_at < operation.ended_at < time.time()

    entries = [entry for entry in ward.world.chronicle() if entry.at >= began]
    at = {(entry.service, entry.what): entry.at for entry in entries}
    assert told["total_recovery_time_seconds"] == pytest.approx(operation.ended_at - operation.started_at, abs=0.001)
    assert [step["step"] for step in told["recovery_steps"]] == STEPS
    assert {step["status"] for step in told["recovery_steps"]} == {"completed"}
    ends = ends_of(told["recovery_steps"], operation.started_at)
    assert ends["notify_dependents"] == pytest.approx(operation.ended_at, abs=0.005)
    stop, start = (step_of(operation, "db", action) for action in (StepAction.STOP, StepAction.START))
    assert ends["stop_service"] == pytest.approx(stop.ended_at, abs=0.005)
    assert ends["verify_health"] == pytest.approx(start.ended_at, abs=0.005)
    # What the node saw lies between: it stopped the old process, started the new one, and found it ready.
    begin_of_life = float((ward.world.folder / "db.lives").read_text().splitlines()[-1].split()[0])
    moments = [
        at["db", "stopped"],
        ends["stop_service"],
        ends["check_dependencies"],
        ends["restart_service"],
        begin_of_life,
        at["db", "ready"],
        ends["verify_health"],
    ]
    assert all(first <= second + CLOCKS_SECONDS for first, second in pairwise(moments)), moments
    assert ends["restart_service"] <= at["db", "started"] + CLOCKS_SECONDS

    above = {edge.service for edge in EDGES}
    assert set(told["affected_services"]) == above
    restarted = {entry.service for entry in entries if entry.what == "started"} - {"db"}
    assert told["dependent_services_restarted"] == len(restarted)
    assert restarted == {"api"}
    told_by_event = {event.service for event in ward.events("dependency-recovered")}
    assert told_by_event == {"report", "web"}, "each by what it needs: of db, and of api, which was restarted"
    assert told["recovery_successful"] is (last_words(ward)["db"].what == "ready") is True
    assert told["post_recovery_health"] == get(api, "/health")["service_health"]["db"]["status"] == "healthy"
    assert (told["service"], told["recovery_reason"], told["state"]) == ("db", "trial", "succeeded")


def ends_of(steps: list[dict[str, Any]], began: float) -> dict[str, float]:
    """When each of the steps was over: they are laid end to end."""
    ends, reached = {}, began
    for step in steps:
        reached += step["time_seconds"]
        ends[step["step"]] = reached
    return ends


def step_of(operation: Operation, service: str, action: StepAction) -> Any:
    (found,) = [step for step in operation.steps if (step.service, step.action) == (service, action)]
    return found
