"""Requests whose result is not waited for, and the operations that they leave: looking at them, taking them back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import seed_schemas as seed
from api_site import API, NODE, QuietSite, quiet_site, validated
from consul_process import ConsulSpace

from citadel_consul.api import requesting
from citadel_consul.api.site import WAITING_AT_A_TIME
from citadel_consul.core.operation import Kind, Operation, OperationState, Step, StepAction, StepState
from citadel_consul.store import documents
from citadel_consul.store.documents import StepChunk

pytestmark = pytest.mark.consul
ALL = {"services": ["all"]}


@pytest.fixture
async def quiet(consul: ConsulSpace) -> AsyncIterator[QuietSite]:
    async with quiet_site(consul) as site:
        yield site


async def test_without_waiting_the_answer_is_202_and_says_where_to_look(quiet: QuietSite) -> None:
    body = {"services": ["redis", "qdrant@n1"], "on_failure": "rollback", "timeout_seconds": 7, "reason": "a test"}
    answer = await quiet.http.post(f"{API}/startup?wait=0", json=body)
    assert answer.status_code == 202
    url = answer.headers["location"]
    assert answer.json()["url"] == url
    operation = answer.json()["operation"]
    assert url == f"{API}/operations/{operation['id']}"
    assert (operation["kind"], operation["state"], operation["targets"]) == (
        "startup",
        "pending",
        ["redis", "qdrant@n1"],
    )
    looked = await quiet.http.get(url)
    assert looked.status_code == 200
    assert looked.json() == {"operation": {**operation, "steps": []}, "url": url}
    entry = await quiet.consul.kv_get(quiet.keys.operation(operation["id"]))
    assert entry is not None
    written = documents.OPERATION.decode(entry.value)
    assert (written.options.on_failure, written.options.timeout_seconds) == ("rollback", 7)
    assert written.options.reason == "a test"
    assert written.requested_by.startswith("api:")


async def test_what_is_asked_of_a_shutdown_is_written(quiet: QuietSite) -> None:
    body = {"services": ["redis"], "graceful": False, "cascade": True}
    answer = await quiet.http.post(f"{API}/shutdown?wait=0", json=body)
    entry = await quiet.consul.kv_get(quiet.keys.operation(answer.json()["operation"]["id"]))
    assert entry is not None
    written = documents.OPERATION.decode(entry.value)
    assert (written.kind, written.options.graceful, written.options.cascade) == (Kind.SHUTDOWN, False, True)


async def test_what_is_asked_of_a_drain_is_written(quiet: QuietSite) -> None:
    body = {"services": ["redis@n1"], "force": True, "drain_seconds": 0, "timeout_seconds": 9}
    answer = await quiet.http.post(f"{API}/drain?wait=0", json=body)
    entry = await quiet.consul.kv_get(quiet.keys.operation(answer.json()["operation"]["id"]))
    assert entry is not None
    written = documents.OPERATION.decode(entry.value)
    assert (written.kind, written.targets) == (Kind.DRAIN, ("redis@n1",))
    assert (written.options.force, written.options.drain_seconds, written.options.timeout_seconds) == (True, 0.0, 9)


async def test_a_rolling_restart_that_is_not_possible_is_refused_at_once(quiet: QuietSite) -> None:
    answer = await quiet.http.post(f"{API}/restart", json={"service": "redis", "rolling": True})
    assert answer.status_code == 409
    assert "a rolling restart starts only what it has stopped" in answer.json()["detail"]


async def test_when_the_wait_is_over_the_answer_is_202(quiet: QuietSite) -> None:
    began = time.monotonic()
    answer = await quiet.http.post(f"{API}/startup?wait=0.3", json=ALL)
    assert answer.status_code == 202
    assert 0.25 < time.monotonic() - began < 5
    assert answer.json()["operation"]["state"] == "pending"


async def test_a_request_that_nobody_takes_is_told_so_and_stays(
    quiet: QuietSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requesting, "LEADER_SECONDS", 0.1)
    answer = await quiet.http.post(f"{API}/startup", json=ALL)
    assert answer.status_code == 504
    problem = validated(answer.json(), seed.PROBLEM)
    assert problem["type"] == "/docs#no-leader"
    operation = (await quiet.http.get(problem["operation"])).json()["operation"]
    assert operation["state"] == "pending"


async def test_the_result_is_answered_as_soon_as_the_operation_has_ended(quiet: QuietSite) -> None:
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(quiet.http.post(f"{API}/startup", json={"services": ["redis"]}))
        operation = await _requested(quiet)
        await _end(quiet, operation, StepState.SUCCEEDED)
    assert asked.result().status_code == 200
    result = validated(asked.result().json(), seed.STARTUP_ANSWER)["startup_result"]
    assert result["execution_results"] == [{"service": "redis", "status": "started", "time_seconds": 1.5, "detail": ""}]
    looked = (await quiet.http.get(f"{API}/operations/{operation.id}")).json()
    assert looked["startup_result"] == result
    assert looked["operation"]["steps"][0]["time_seconds"] == 1.5


async def test_an_operation_that_failed_is_answered_with_200_and_its_result(quiet: QuietSite) -> None:
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(quiet.http.post(f"{API}/startup", json={"services": ["redis"]}))
        await _end(quiet, await _requested(quiet), StepState.FAILED)
    assert asked.result().status_code == 200
    result = validated(asked.result().json(), seed.STARTUP_ANSWER)["startup_result"]
    assert (result["state"], result["success_rate"], result["failed_services"]) == ("failed", 0.0, ["redis"])


async def test_what_the_leader_refuses_is_a_refusal_here_too(quiet: QuietSite) -> None:
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(quiet.http.post(f"{API}/restart", json={"service": "redis"}))
        operation = await _requested(quiet)
        refused = replace(operation, state=OperationState.FAILED, ended_at=time.time(), detail="it is not allowed now")
        await quiet.consul.kv_put(quiet.keys.operation(operation.id), documents.encode_operation(refused))
    assert asked.result().status_code == 409
    problem = validated(asked.result().json(), seed.PROBLEM)
    assert problem["detail"] == "it is not allowed now"
    assert problem["operation"] == f"{API}/operations/{operation.id}"


async def test_only_so_many_requests_wait_and_the_rest_get_202_at_once(quiet: QuietSite) -> None:
    """They would take the connections that the control loop lives on."""
    async with asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(quiet.http.post(f"{API}/startup?wait=2", json=ALL)) for _ in range(WAITING_AT_A_TIME)
        ]
        async with asyncio.timeout(5):
            while len((await quiet.http.get(f"{API}/operations")).json()["operations"]) < WAITING_AT_A_TIME:
                pass
        began = time.monotonic()
        answer = await quiet.http.post(f"{API}/startup?wait=30", json=ALL)
        assert answer.status_code == 202
        assert time.monotonic() - began < 1.5
    assert [task.result().status_code for task in waiting] == [202] * WAITING_AT_A_TIME
    assert quiet.app.state.site.waiting == 0


async def test_a_client_that_leaves_is_waited_for_no_longer(quiet: QuietSite) -> None:
    gone = asyncio.Event()
    body = b'{"services": ["all"]}'
    sent = False

    async def receive() -> dict[str, object]:
        nonlocal sent
        if sent:
            await gone.wait()
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: object) -> None:
        """Nobody reads it."""

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    path = f"{API}/startup"
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers, "root_path": ""}
    scope |= {"scheme": "http", "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 1), "http_version": "1.1"}
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(quiet.app(scope, receive, send))
        await _requested(quiet)
        gone.set()
    assert quiet.app.state.site.waiting == 0


@pytest.mark.parametrize("method", ["DELETE", "POST"])
async def test_an_operation_is_cancelled(quiet: QuietSite, method: str) -> None:
    url = (await quiet.http.post(f"{API}/startup?wait=0", json=ALL)).headers["location"]
    answer = await quiet.http.request(method, url if method == "DELETE" else f"{url}/cancel")
    assert answer.status_code == 202
    assert answer.headers["location"] == url
    entry = await quiet.consul.kv_get(quiet.keys.cancel(url.rpartition("/")[2]))
    assert entry is not None
    assert documents.CANCELLATION.decode(entry.value).by.startswith("api:")


async def test_what_has_ended_cannot_be_cancelled(quiet: QuietSite) -> None:
    url = (await quiet.http.post(f"{API}/startup?wait=0", json=ALL)).headers["location"]
    await _end(quiet, await _requested(quiet), StepState.SUCCEEDED)
    answer = await quiet.http.delete(url)
    assert answer.status_code == 409
    assert "has already succeeded" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("identifier", "status"),
    [("20250715T143000123456-k7x2", 404), ("nix", 422), ("20250715T143000123456-k7x2%2Fcancel", 404)],
)
async def test_an_operation_that_does_not_exist_is_a_problem(quiet: QuietSite, identifier: str, status: int) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel")):
        answer = await quiet.http.request(method, f"{API}/operations/{identifier}{path}")
        assert answer.status_code in (status, 405), method
        validated(answer.json(), seed.PROBLEM)


async def test_the_list_names_every_operation_in_the_order_of_time(quiet: QuietSite) -> None:
    urls = [(await quiet.http.post(f"{API}/startup?wait=0", json=ALL)).headers["location"] for _ in range(3)]
    listed = (await quiet.http.get(f"{API}/operations")).json()["operations"]
    assert [f"{API}/operations/{op['id']}" for op in listed] == urls
    assert {op["steps"] for op in listed} == {None}


async def _requested(quiet: QuietSite) -> Operation:
    """The operation that a request wrote."""
    async with asyncio.timeout(5):
        while True:
            found = (await quiet.consul.kv_list(quiet.keys.operations)).value
            if found:
                return documents.OPERATION.decode(found[0].value)


async def _end(quiet: QuietSite, operation: Operation, state: StepState) -> None:
    """Do what a leader does: write the steps, then the head that says how it ended."""
    now = time.time()
    step = Step("redis", NODE, StepAction.START, state, generation=1, began_at=now, ended_at=now + 1.5)
    word = OperationState.SUCCEEDED if state is StepState.SUCCEEDED else OperationState.FAILED
    head = replace(operation, state=word, step_count=1, started_at=now, ended_at=now + 2)
    await quiet.consul.kv_put(quiet.keys.step_chunk(operation.id, 0), documents.STEPS.encode(StepChunk((step,))))
    await quiet.consul.kv_put(quiet.keys.operation(operation.id), documents.encode_operation(head))
