"""The twelve services of the stack file at work: real processes, found through a real Consul."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ai_platform import EXAMPLE, KEY, PlatformProcesses, edges, open_folder, wait_until
from consul_process import ConsulProcess, clear
from yaml import safe_load

pytestmark = [pytest.mark.consul, pytest.mark.slow]

QUESTION = "What happens when the leader crashes?"
HTTP_SERVICES = 10
STORES = ("postgresql", "redis")


@pytest.fixture(scope="module")
def platform(consul_server: ConsulProcess) -> Iterator[PlatformProcesses]:
    with open_folder() as folder:
        processes = PlatformProcesses(consul_server.address, folder)
        try:
            processes.start()
            yield processes
        finally:
            processes.end()
            clear(consul_server)


def healths(platform: PlatformProcesses) -> dict[str, Any]:
    return {name: platform.get(name, "/health") for name in platform.services if name not in STORES}


def all_ok(platform: PlatformProcesses) -> bool:
    return all(health["status"] == "ok" for health in healths(platform).values())


def test_the_stack_has_twelve_services_and_an_edge_of_every_strength(platform: PlatformProcesses) -> None:
    assert len(platform.services) == 12
    written = [edge for spec in platform.services.values() for edge in edges(spec).values()]
    assert {edge.get("strength", "hard") for edge in written} == {"hard", "soft", "milestone"}
    assert {edge.get("on_recovery", "notify") for edge in written} == {"notify", "restart"}


def test_the_first_question_is_answered_as_the_smoke_file_promises(platform: PlatformProcesses) -> None:
    smoke = safe_load((EXAMPLE / "smoke.yaml").read_text())
    assert smoke["url"].endswith("/v1/ask")
    assert smoke["method"] == "POST"
    key = smoke["headers"]["authorization"].removeprefix("Bearer ")
    answer = platform.ask(smoke["json"]["question"], key)
    assert answer.status_code == smoke["expect_status"]
    body = answer.json()
    assert all(body[field] for field in smoke["expect_fields"])
    assert len(set(body["path"])) >= smoke["min_hops"]


def test_an_answer_quotes_its_source_and_names_the_way_it_took(platform: PlatformProcesses) -> None:
    body = platform.ask(QUESTION).json()
    assert body["answer"].startswith("When the leader crashes, its session ends")
    assert [source["document"] for source in body["sources"] if source["used"]] == ["leader-election"]
    assert body["sources"][0]["title"] == "Leader election and failover"
    assert body["path"] == [
        "api-gateway",
        "auth-service",
        "request-router",
        "embedding-service",
        "qdrant",
        "metadata-service",
        "external-model-integrations",
    ]
    nodes = {hop["service"]: hop["node"] for hop in body["trace"]}
    assert (nodes["api-gateway"], nodes["qdrant"]) == ("hx-orc-01", "hx-db-01")


def test_no_hop_takes_longer_than_the_one_above_it(platform: PlatformProcesses) -> None:
    trace = platform.ask(QUESTION).json()["trace"]
    by_depth = {depth: sum(hop["ms"] for hop in trace if hop["depth"] == depth) for depth in range(4)}
    assert [hop["depth"] for hop in trace[:4]] == [0, 1, 1, 2]
    assert by_depth[0] > by_depth[1] > by_depth[2] > 0


def test_a_question_off_the_subject_is_not_answered(platform: PlatformProcesses) -> None:
    body = platform.ask("Who was the king of France?").json()
    assert body["answer"] == "The documents do not say."
    assert not any(source["used"] for source in body["sources"])


def test_a_new_document_answers_questions_soon_after_and_a_changed_one_does_anew(platform: PlatformProcesses) -> None:
    document = {"id": "zebra", "title": "Zebras", "text": "A zebra has black stripes. It lives in herds."}
    queued = platform.post("/v1/documents", document).json()
    assert queued["status"] == "queued"
    question = "Which stripes does a zebra have?"
    wait_until(lambda: platform.ask(question).json()["answer"] == "A zebra has black stripes.", "the new document")
    wait_until(lambda: job(platform, queued["job"])["state"] == "succeeded", "the record of the job")
    assert platform.post("/v1/documents", document).json()["status"] == "unchanged"
    platform.post("/v1/documents", {**document, "text": "A zebra has white stripes."})
    wait_until(lambda: platform.ask(question).json()["answer"] == "A zebra has white stripes.", "the change")


def job(platform: PlatformProcesses, identity: str) -> dict[str, Any]:
    found: dict[str, Any] = {"state": "unknown"}
    found.update(platform.get("batch-processor", f"/jobs/{identity}"))
    return found


def test_a_key_opens_only_what_it_is_for_and_only_until_it_is_revoked(platform: PlatformProcesses) -> None:
    assert platform.ask(QUESTION, key="").status_code == 401
    assert platform.ask(QUESTION, key="guessed").status_code == 401
    made = platform.request("auth-service", "POST", "/keys", {"client": "reader"}, {"x-api-key": KEY}).json()
    assert platform.ask(QUESTION, made["key"]).status_code == 200
    assert platform.post("/v1/documents", {"title": "t", "text": "x"}, made["key"]).status_code == 403
    assert platform.request("auth-service", "GET", "/keys", None, {"x-api-key": made["key"]}).status_code == 403
    platform.request("auth-service", "DELETE", f"/keys/{made['id']}", None, {"x-api-key": KEY})
    assert platform.ask(QUESTION, made["key"]).status_code == 401


def test_a_client_that_used_up_its_tokens_is_told_when_to_come_back(platform: PlatformProcesses) -> None:
    wish = {"client": "hasty", "per_minute": 1, "burst": 2}
    made = platform.request("auth-service", "POST", "/keys", wish, {"x-api-key": KEY}).json()
    answers = [platform.ask(QUESTION, made["key"]) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 50 < int(answers[-1].headers["retry-after"]) <= 60


def test_usage_reaches_the_database_through_the_stream(platform: PlatformProcesses) -> None:
    identity = platform.ask(QUESTION).json()["request_id"]

    def noted() -> bool:
        events = platform.get("event-collector", "/events")["events"]
        return any(event["request_id"] == identity and event["status"] == 200 for event in events)

    wait_until(noted, "the event of the request")
    headers = {"authorization": f"Bearer {KEY}"}
    usage = platform.request("api-gateway", "GET", "/v1/usage", None, headers).json()["usage"]
    asked = next(one for one in usage if (one["client"], one["kind"]) == ("demo", "ask"))
    assert asked["requests"] >= 1
    assert asked["p95_ms"] >= asked["mean_ms"] / 2 > 0


def test_every_service_reports_figures_of_its_own(platform: PlatformProcesses) -> None:
    platform.ask(QUESTION)
    found = healths(platform)
    assert len(found) == HTTP_SERVICES
    for health in found.values():
        assert health["status"] == "ok"
        assert health["memory_usage_mb"] > 1
        assert {"request_rate", "error_rate", "active_connections", "uptime_seconds"} <= health.keys()
    assert found["qdrant"]["points"] >= 8
    assert found["batch-processor"]["queue_size"] == 0
    assert platform.get("dashboard", "/health/postgresql")["active_connections"] >= 1
    assert platform.get("dashboard", "/health/redis")["connected_clients"] >= 1


def test_the_dashboard_shows_all_twelve_also_to_prometheus(platform: PlatformProcesses) -> None:
    overview = platform.get("dashboard", "/api/overview")
    assert {one["service"]: one["status"] for one in overview["services"]} == dict.fromkeys(platform.services, "ok")
    metrics = platform.request("dashboard", "GET", "/metrics").text
    assert 'ai_platform_up{service="redis"} 1.0' in metrics
    assert 'ai_platform_points{service="qdrant"}' in metrics
    assert "text/html" in platform.request("dashboard", "GET", "/").headers["content-type"]


def test_without_redis_questions_are_answered_and_the_services_say_that_they_are_degraded(
    platform: PlatformProcesses,
) -> None:
    platform.kill_one("redis")
    try:
        assert platform.ask(QUESTION).json()["answer"].startswith("When the leader crashes")
        assert platform.get("api-gateway", "/health")["status"] == "degraded"
        assert platform.get("embedding-service", "/health")["status"] == "degraded"
        assert platform.get("qdrant", "/health")["status"] == "ok"
    finally:
        platform.start_one("redis")
    wait_until(lambda: all_ok(platform), "all services to be well again")


def test_a_killed_database_is_found_again_by_the_services_that_use_it(platform: PlatformProcesses) -> None:
    platform.kill_one("postgresql")
    try:
        refused = platform.ask(QUESTION)
        assert refused.status_code == 503
        assert "postgresql" in refused.json()["detail"]
    finally:
        platform.start_one("postgresql")
    wait_until(lambda: platform.ask(QUESTION).status_code == 200, "the next answer")
    wait_until(lambda: all_ok(platform), "all services to be well again")


def test_documents_that_come_while_the_batch_processor_is_dead_are_indexed_later(platform: PlatformProcesses) -> None:
    platform.kill_one("batch-processor")
    queued = platform.post("/v1/documents", {"title": "Okapi", "text": "The okapi lives in the rain forest."}).json()
    platform.start_one("batch-processor")
    # Ready means that what had been waiting is done.
    assert job(platform, queued["job"])["state"] == "succeeded"
    assert platform.ask("Where does the okapi live?").json()["answer"] == "The okapi lives in the rain forest."


def test_all_end_well_within_their_time_and_find_everything_again(platform: PlatformProcesses) -> None:
    before = platform.get("qdrant", "/health")["points"]
    ended = platform.stop()
    assert {name: status for name, (status, _) in ended.items()} == dict.fromkeys(platform.services, 0)
    slow = {name: round(seconds, 2) for name, (_, seconds) in ended.items() if seconds > 3.0}
    assert not slow, "ending takes less than a second; more than three even on a busy machine is a fault"
    platform.start()
    assert platform.get("qdrant", "/health")["points"] == before
    assert platform.ask(QUESTION).json()["answer"].startswith("When the leader crashes")
    cached = platform.get("embedding-service", "/health")
    assert cached["embeddings_computed"] == 0, "redis kept the cache"
