"""Each request of the site's document against a running site, each answer held against a schema written from it.

Real: Consul, the orchestrator, the node agent, six processes, and the API on its socket.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import seed_schemas as seed
from api_site import API, EDGES, TYPES, LiveSite, live_site, specs, validated, write_stack
from consul_process import ConsulSpace

from citadel_consul.core.model import ProcessBackend

pytestmark = pytest.mark.consul


@pytest.fixture
def place(consul: ConsulSpace, tmp_path: Path) -> tuple[str, str, Path]:
    return consul.address, consul.stack, tmp_path


async def test_every_request_of_the_sites_document_is_answered_with_its_fields(place: tuple[str, str, Path]) -> None:
    async with live_site(*place) as site:
        startup = await _post(site, "startup", {"services": ["all"]}, seed.STARTUP_ANSWER)
        _check_startup(startup["startup_result"])
        _check_status(await _get(site, "status", seed.STATUS_ANSWER))
        _check_services(await _get(site, "services", seed.SERVICES_ANSWER), site)
        _check_health(await _get(site, "health", seed.HEALTH_ANSWER))
        _check_graph(await _get(site, "dependencies", seed.DEPENDENCY_ANSWER))
        restart = await _post(site, "restart", {"service": "embedding-service"}, seed.RESTART_ANSWER)
        words = {r["service"]: r["status"] for r in restart["restart_result"]["execution_results"]}
        assert words == {"embedding-service": "restarted", "api-gateway": "notified"}
        recovery = await _post(site, "recover", {"service": "qdrant"}, seed.RECOVERY_ANSWER)
        _check_recovery(recovery["recovery_result"])
        metrics = await _get(site, "metrics", seed.METRICS_ANSWER)
        _check_metrics(metrics["orchestration_metrics"], startup["startup_result"])
        for path in ("debug/dependencies", "debug/health"):
            assert (await site.http.get(f"{API}/{path}")).status_code == 200
        await _check_test_recovery(site)
        shutdown = await _post(site, "shutdown", {"services": ["all"], "graceful": True}, seed.SHUTDOWN_ANSWER)
        _check_shutdown(shutdown["shutdown_result"])
        assert (await _get(site, "status", seed.STATUS_ANSWER))["system_health"]["overall_status"] == "stopped"


async def test_a_service_that_dies_shows_and_is_recovered_for_that_reason(place: tuple[str, str, Path]) -> None:
    async with live_site(*place) as site:
        await _post(site, "startup", {"services": ["batch-processor"]}, seed.STARTUP_ANSWER)
        services = {s["name"]: s for s in (await _get(site, "services", seed.SERVICES_ANSWER))["services"]}
        os.kill(services["batch-processor"]["instances"][0]["pid"], signal.SIGKILL)
        await _until_not_healthy(site, "batch-processor")
        body = {"service": "batch-processor", "execute": True}
        answer = await site.http.post(f"{API}/debug/test-recovery", json=body)
        result = validated(answer.json(), seed.RECOVERY_ANSWER)["recovery_result"]
        assert result["recovery_successful"]
        assert result["post_recovery_health"] == "healthy"
        assert await _status_of(site, "batch-processor") == "healthy"


async def test_a_service_that_cannot_start_is_told_and_the_rest_runs(place: tuple[str, str, Path]) -> None:
    async with live_site(*place) as site:
        broken = replace(specs(site.ports.values())["redis"], backend=ProcessBackend(command=("/bin/false",)))
        await write_stack(site.consul, site.keys, [broken], ())
        answer = await site.http.post(f"{API}/startup", json={"services": ["all"]})
        assert answer.status_code == 200
        result = validated(answer.json(), seed.STARTUP_ANSWER)["startup_result"]
        words = {r["service"]: r["status"] for r in result["execution_results"]}
        assert result["state"] == "failed"
        assert result["failed_services"] == ["redis"]
        assert words == {
            "qdrant": "started",
            "postgresql": "started",
            "embedding-service": "started",
            "redis": "failed",
            "api-gateway": "skipped",
            "batch-processor": "skipped",
        }
        assert result["success_rate"] == 50.0


async def test_a_stop_that_would_take_down_dependents_is_refused_and_names_them(
    place: tuple[str, str, Path],
) -> None:
    async with live_site(*place) as site:
        await _post(site, "startup", {"services": ["all"]}, seed.STARTUP_ANSWER)
        refused = await site.http.post(f"{API}/shutdown", json={"services": ["redis"]})
        assert refused.status_code == 409
        problem = validated(refused.json(), seed.PROBLEM)
        assert sorted(problem["dependents"]) == ["api-gateway", "batch-processor"]
        operations = (await site.http.get(f"{API}/operations")).json()["operations"]
        assert [op["kind"] for op in operations] == ["startup"]
        body = {"services": ["redis"], "cascade": True}
        result = (await _post(site, "shutdown", body, seed.SHUTDOWN_ANSWER))["shutdown_result"]
        assert [set(entry["services"]) for entry in result["shutdown_sequence"]] == [
            {"api-gateway", "batch-processor"},
            {"redis"},
        ]
        assert {r["service"]: r["status"] for r in result["execution_results"]} == {
            "redis": "stopped",
            "api-gateway": "stopped",
            "batch-processor": "stopped",
        }


async def _get(site: LiveSite, path: str, schema: dict[str, Any]) -> Any:
    return _answer(await site.http.get(f"{API}/{path}"), schema)


async def _post(site: LiveSite, path: str, body: dict[str, Any], schema: dict[str, Any]) -> Any:
    return _answer(await site.http.post(f"{API}/{path}", json=body), schema)


def _answer(response: httpx.Response, schema: dict[str, Any]) -> Any:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return validated(response.json(), schema)


async def _until_not_healthy(site: LiveSite, service: str) -> None:
    """Wait until the API shows it; each look costs a round trip, so there is no need to sleep between them."""
    async with asyncio.timeout(10):
        while await _status_of(site, service) == "healthy":
            pass


async def _status_of(site: LiveSite, service: str) -> str:
    health = await _get(site, "health", seed.HEALTH_ANSWER)
    word: str = health["service_health"][service]["status"]
    return word


def _check_startup(result: dict[str, Any]) -> None:
    assert result["services_requested"] == ["all"]
    assert result["total_services"] == len(TYPES)
    assert [set(entry["services"]) for entry in result["startup_sequence"]] == [
        {"qdrant", "redis", "postgresql"},
        {"embedding-service", "batch-processor"},
        {"api-gateway"},
    ]
    assert [entry["parallel"] for entry in result["startup_sequence"]] == [True, True, False]
    assert {r["status"] for r in result["execution_results"]} == {"started"}
    assert all(0 < r["time_seconds"] <= result["total_startup_time_seconds"] for r in result["execution_results"])
    assert (result["success_rate"], result["failed_services"], result["warnings"]) == (100.0, [], [])


def _check_status(answer: dict[str, Any]) -> None:
    status = answer["orchestrator_status"]
    assert status["status"] == "operational"
    assert (status["managed_services"], status["healthy_services"], status["unhealthy_services"]) == (6, 6, 0)
    assert status["startup_time_seconds"] > 0
    assert status["leader"] == status["leader_node"] + ":" + status["leader_api"].rpartition(":")[2]
    assert answer["system_health"] == {
        "overall_status": "healthy",
        "critical_services_healthy": True,
        "non_critical_services_healthy": True,
        "health_score": 100.0,
    }


def _check_services(answer: dict[str, Any], site: LiveSite) -> None:
    services = {service["name"]: service for service in answer["services"]}
    assert {name: (s["type"], s["critical"]) for name, s in services.items()} == dict(TYPES)
    assert services["qdrant"]["endpoint"] == f"tcp://127.0.0.1:{site.ports['qdrant']}"
    assert services["qdrant"]["health_endpoint"] == services["qdrant"]["endpoint"]
    gateway = services["api-gateway"]
    assert sorted(gateway["dependencies"]) == ["embedding-service", "postgresql", "qdrant", "redis"]
    assert gateway["dependents"] == []
    assert (gateway["startup_order"], gateway["shutdown_order"]) == (3, 1)
    assert (services["qdrant"]["startup_order"], services["qdrant"]["shutdown_order"]) == (1, 3)


def _check_health(answer: dict[str, Any]) -> None:
    assert set(answer["service_health"]) == set(TYPES)
    for service in answer["service_health"].values():
        assert service["status"] == "healthy"
        assert 75 < service["health_score"] <= 100.0
        assert 0 < service["uptime_seconds"] < 60
        assert 0 < service["response_time_ms"] < 5000
        assert service["detail"] == ""


def _check_graph(answer: dict[str, Any]) -> None:
    graph = answer["dependency_graph"]
    names = [node["id"] for node in graph["nodes"]]
    assert {(edge["from"], edge["to"]) for edge in graph["edges"]} == {(e.dependency, e.service) for e in EDGES}
    assert dict(zip(names, graph["startup_order"], strict=True))["api-gateway"] == 3
    assert dict(zip(names, graph["shutdown_order"], strict=True))["qdrant"] == 3
    assert graph["critical_path"] == ["qdrant", "embedding-service", "api-gateway"]


def _check_recovery(result: dict[str, Any]) -> None:
    assert result["recovery_successful"] is True
    assert result["recovery_reason"] == "requested"
    assert result["affected_services"] == ["embedding-service", "api-gateway"]
    assert result["dependent_services_restarted"] == 1
    assert {step["status"] for step in result["recovery_steps"]} == {"completed"}
    total = sum(step["time_seconds"] for step in result["recovery_steps"])
    assert total == pytest.approx(result["total_recovery_time_seconds"], abs=0.005)


def _check_metrics(metrics: dict[str, Any], startup: dict[str, Any]) -> None:
    assert metrics["startup_performance"] == {
        "average_startup_time_seconds": startup["total_startup_time_seconds"],
        "fastest_startup_seconds": startup["total_startup_time_seconds"],
        "slowest_startup_seconds": startup["total_startup_time_seconds"],
        "startup_success_rate": 100.0,
    }
    reliability = metrics["service_reliability"]
    assert reliability["total_service_restarts"] == 3  # embedding-service, qdrant, embedding-service on its account
    assert (reliability["successful_recoveries"], reliability["failed_recoveries"]) == (1, 0)
    uptime = metrics["system_uptime"]
    assert 0 < uptime["total_uptime_seconds"] < 60
    assert uptime["planned_downtime_seconds"] > 0  # the restart
    assert uptime["unplanned_downtime_seconds"] > 0  # the recovery
    assert reliability["most_reliable_service"] in TYPES
    assert reliability["least_reliable_service"] in ("qdrant", "embedding-service", "api-gateway")
    assert 0 < reliability["average_uptime_percentage"] < 100
    monitoring = metrics["health_monitoring"]
    assert monitoring["total_health_checks"] >= len(TYPES)
    assert (monitoring["failed_health_checks"], monitoring["health_check_success_rate"]) == (0, 100.0)
    assert monitoring["average_health_check_time_ms"] > 0


async def _check_test_recovery(site: LiveSite) -> None:
    """Without a body, as the document has it, it tells and does nothing."""
    before = (await site.http.get(f"{API}/operations")).json()
    answer = await site.http.post(f"{API}/debug/test-recovery")
    assert answer.status_code == 200
    test = answer.json()["recovery_test"]
    assert test["executed"] is False
    planned = {recovery["service"]: recovery for recovery in test["recoveries"]}
    assert set(planned) == set(TYPES)
    assert planned["qdrant"]["affected_services"] == ["embedding-service", "api-gateway"]
    assert planned["qdrant"]["dependent_services_restarted"] == 1
    assert [(s["action"], s["service"]) for s in planned["qdrant"]["planned_steps"]] == [
        ("stop", "qdrant"),
        ("start", "qdrant"),
        ("stop", "embedding-service"),
        ("start", "embedding-service"),
        ("notify", "api-gateway"),
    ]
    one = (await site.http.post(f"{API}/debug/test-recovery", json={"service": "qdrant"})).json()["recovery_test"]
    assert [recovery["service"] for recovery in one["recoveries"]] == ["qdrant"]
    assert (await site.http.get(f"{API}/operations")).json() == before


def _check_shutdown(result: dict[str, Any]) -> None:
    assert result["graceful"] is True
    assert {r["status"] for r in result["execution_results"]} == {"stopped"}
    assert [set(entry["services"]) for entry in result["shutdown_sequence"]] == [
        {"api-gateway", "batch-processor"},
        {"embedding-service", "redis", "postgresql"},
        {"qdrant"},
    ]
    assert result["success_rate"] == 100.0
