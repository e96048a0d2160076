"""What machines ask: liveness, readiness, Prometheus; and the manual."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from api_site import API, TYPES, QuietSite, asking, live_site, orchestrator_of, quiet_site
from consul_process import ConsulSpace
from prometheus_client.parser import text_string_to_metric_families

from citadel_consul.api.app import create_app
from citadel_consul.api.problems import ALL_KINDS

pytestmark = pytest.mark.consul


@pytest.fixture
async def quiet(consul: ConsulSpace) -> AsyncIterator[QuietSite]:
    async with quiet_site(consul) as site:
        yield site


def _samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_an_orchestrator_is_alive_and_ready_as_long_as_consul_answers(quiet: QuietSite) -> None:
    assert (await quiet.http.get("/livez")).json() == {"status": "alive"}
    ready = await quiet.http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["status"] == "ready"
    assert ready.json()["leading"] is False


async def test_prometheus_sees_leader_services_and_operations(consul: ConsulSpace, tmp_path: Path) -> None:
    async with live_site(consul.address, consul.stack, tmp_path) as site:
        await site.http.post(f"{API}/startup", json={"services": ["redis"]})
        await site.http.get(f"{API}/no-such-path-of-mine")
        answer = await site.http.get("/metrics")
        found = _samples(answer.text)
    assert answer.headers["content-type"].startswith("text/plain")
    assert found["citadel_leader", ()] == 1
    assert found["citadel_leader_epoch", ()] > 0
    assert found["citadel_control_loop_turns_total", ()] > 0
    assert found["citadel_control_loop_transactions_total", ()] > 0
    assert found["citadel_stack_readable", ()] == found["citadel_stack_led", ()] == 1
    assert found["citadel_services", (("status", "healthy"),)] == 1
    assert found["citadel_services", (("status", "stopped"),)] == len(TYPES) - 1
    assert found["citadel_service_up", (("critical", "true"), ("service", "redis"))] == 1
    assert found["citadel_service_up", (("critical", "false"), ("service", "batch-processor"))] == 0
    assert found["citadel_service_starts_total", (("service", "redis"),)] == 1
    assert 0 < found["citadel_service_uptime_seconds", (("service", "redis"),)] < 60
    assert found["citadel_operations", (("kind", "startup"), ("state", "succeeded"))] == 1
    assert found["citadel_agents", ()] == 1
    asked = (("code", "200"), ("method", "POST"), ("route", f"{API}/startup"))
    assert found["citadel_api_requests_total", asked] == 1
    assert "no-such-path-of-mine" not in answer.text
    assert found["citadel_tasks", ()] > 1
    assert found["process_resident_memory_bytes", ()] > 1_000_000
    assert all(name.startswith(("citadel_", "process_")) for name, _ in found)


async def test_a_standby_says_that_it_does_not_lead(quiet: QuietSite) -> None:
    found = _samples((await quiet.http.get("/metrics")).text)
    assert found["citadel_leader", ()] == found["citadel_stack_led", ()] == 0
    assert ("citadel_leader_epoch", ()) not in found
    assert found["citadel_agents_missing", ()] == 1


async def test_metrics_can_be_switched_off(quiet: QuietSite) -> None:
    app = create_app(quiet.consul, orchestrator_of(quiet.consul, quiet.space.stack), metrics_enabled=False)
    async with asking(app) as http:
        assert (await http.get("/metrics")).status_code == 404
        assert (await http.get(f"{API}/metrics")).status_code == 200


async def test_the_manual_names_every_endpoint_and_every_problem_and_needs_nothing_from_elsewhere(
    quiet: QuietSite,
) -> None:
    home = await quiet.http.get("/")
    assert home.is_redirect
    page = await quiet.http.get(home.headers["location"])
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    openapi = (await quiet.http.get("/openapi.json")).json()
    for path in openapi["paths"]:
        assert f"</span> {path}</code>" in page.text, path
    for kind in ALL_KINDS:
        assert f'id="{kind.name}"' in page.text
    assert "<script" not in page.text
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page.text)


async def test_the_openapi_document_describes_answers_and_bodies(quiet: QuietSite) -> None:
    openapi = (await quiet.http.get("/openapi.json")).json()
    paths = openapi["paths"]
    assert set(paths) >= {
        f"{API}/{path}"
        for path in (
            "status", "services", "health", "startup", "shutdown", "restart", "dependencies", "recover", "metrics",
            "debug/dependencies", "debug/health", "debug/test-recovery", "operations", "operations/{operation_id}",
        )
    }  # fmt: skip
    schema = paths[f"{API}/startup"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/StartupAnswer"}
    assert "application/problem+json" in paths[f"{API}/startup"]["post"]["responses"]["default"]["content"]
    assert not any("HTTPValidationError" in name for name in openapi["components"]["schemas"])
    assert openapi["components"]["schemas"]["StartupBody"]["additionalProperties"] is False
