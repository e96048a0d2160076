"""What every service does alike: health, problems, figures, logs, settings."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import logging
from typing import Any

import ai_platform
import httpx
import pytest
from services.application import Application, Service, listen, serve
from services.failures import TooMany, Unavailable
from services.logs import JsonLines
from services.payload import Json, body_of, text, whole
from services.settings import BadSetting, Settings
from services.tracing import decode
from services.vitals import Vitals
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

SETTINGS = Settings("demo", port=1, node="node-a")


async def echo(request: Request) -> Response:
    body = await body_of(request)
    return Json({"name": text(body, "name"), "count": whole(body, "count", default=1, low=1, high=5)})


async def refuse(_: Request) -> Response:
    raise TooMany("slowly", headers={"retry-after": "7"})


def application(**more: Any) -> Application:
    return Application(Service(SETTINGS, [Route("/echo", echo, methods=["POST"]), Route("/refuse", refuse)], **more))


async def ask(app: Application, path: str, body: object = None, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app.asgi, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://demo") as client:
        if body is None:
            return await client.get(path, headers=headers)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await client.post(path, content=content, headers=headers)


async def test_a_service_that_is_starting_says_so_and_serves_nobody() -> None:
    app = application()
    assert (await ask(app, "/health")).status_code == 503
    refused = await ask(app, "/echo", {"name": "a"})
    assert (refused.status_code, refused.json()["title"]) == (503, "Starting")


async def test_a_service_is_ok_once_its_start_is_done() -> None:
    app = application()
    await app.start()
    answer = await ask(app, "/health")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["service"], body["node"]) == ("ok", "demo", "node-a")
    assert body["memory_usage_mb"] > 1


async def test_a_start_that_lacks_something_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def no_wait(seconds: float) -> None:
        waited.append(seconds)

    attempts = iter([Unavailable("redis is away"), Unavailable("redis is away"), None])

    async def start() -> None:
        if failure := next(attempts):
            raise failure

    monkeypatch.setattr("asyncio.sleep", no_wait)
    app = application(start=start)
    await app.start()
    assert waited == [0.05, 0.1]
    assert (await ask(app, "/health")).status_code == 200


async def test_a_failing_probe_makes_a_service_degraded_with_the_reason() -> None:
    async def probe() -> None:
        raise Unavailable("refused")

    app = application(probes={"redis": probe})
    await app.start()
    answer = await ask(app, "/health")
    assert answer.status_code == 429
    assert (answer.json()["status"], answer.json()["reasons"]) == ("degraded", ["redis: refused"])


async def test_figures_can_make_a_service_degraded() -> None:
    async def figures() -> dict[str, Any]:
        return {"queue_size": 200, "degraded": ["the queue holds 200 jobs"]}

    app = application(figures=figures)
    await app.start()
    body = (await ask(app, "/health")).json()
    assert body["queue_size"] == 200
    assert body["reasons"] == ["the queue holds 200 jobs"]
    assert "degraded" not in body


async def test_what_consul_asks_answers_the_same_as_long_as_nothing_happens() -> None:
    numbers = itertools.count()

    async def figures() -> dict[str, Any]:
        return {"jobs": next(numbers)}

    app = application(figures=figures)
    assert (await ask(app, "/ready")).status_code == 503
    await app.start()
    health = [(await ask(app, "/health")).json() for _ in range(2)]
    ready = [await ask(app, "/ready") for _ in range(2)]
    assert health[0]["jobs"] != health[1]["jobs"]
    assert {(answer.status_code, answer.text) for answer in ready} == {(200, ready[0].text)}
    assert ready[0].json() == {key: health[0][key] for key in ("status", "service", "node")}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "not JSON"),
        ([], "must be a JSON object"),
        ({}, "name: a text"),
        ({"name": " "}, "name: a text"),
        ({"name": 3}, "name: a text"),
        ({"name": "a", "count": 6}, "count: a whole number between 1 and 5"),
        ({"name": "a", "count": True}, "count: a whole number"),
        (b" " * (8 * 1024 * 1024 + 1), "larger than"),
    ],
)
async def test_a_bad_body_is_answered_with_the_field_at_fault(body: object, detail: str) -> None:
    app = application()
    await app.start()
    answer = await ask(app, "/echo", body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert detail in answer.json()["detail"]


async def test_an_unknown_path_is_answered_with_a_problem_document() -> None:
    app = application()
    await app.start()
    answer = await ask(app, "/nowhere")
    assert answer.json() == {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "Not Found"}


async def test_a_failure_keeps_its_headers() -> None:
    app = application()
    await app.start()
    answer = await ask(app, "/refuse")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


async def test_an_answer_carries_the_hop_and_the_id_of_its_request() -> None:
    app = application()
    await app.start()
    answer = await ask(app, "/echo", {"name": "a"}, **{"x-request-id": "abc-1"})
    hop = decode(answer.headers["x-hops"])[0]
    assert (hop.service, hop.node, hop.depth) == ("demo", "node-a", 0)
    assert answer.headers["x-request-id"] == "abc-1"


async def test_a_request_id_unfit_for_a_log_is_replaced() -> None:
    app = application()
    await app.start()
    answer = await ask(app, "/echo", {"name": "a"}, **{"x-request-id": 'a" b'})
    assert len(answer.headers["x-request-id"]) == 32


def test_figures_are_of_the_last_minute() -> None:
    now = [0.0]
    vitals = Vitals(clock=lambda: now[0])
    for _ in range(30):
        vitals.record(0.010, failed=False)
    now[0] = 30.0
    for _ in range(10):
        vitals.record(0.050, failed=True)
    figures = vitals.figures()
    assert (figures["request_rate"], figures["error_rate"], figures["mean_response_ms"]) == (1.33, 25.0, 20.0)
    now[0] = 75.0
    figures = vitals.figures()
    assert (figures["requests_total"], figures["request_rate"], figures["error_rate"]) == (40, 0.17, 100.0)
    now[0] = 200.0
    assert vitals.figures()["request_rate"] == 0.0


def test_a_log_line_is_one_json_object_with_its_fields() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "two\nlines %s", ("a",), None)
    record.fields = {"ms": 1.5}
    line = JsonLines("demo", "node-a").format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["message"], parsed["ms"], parsed["service"]) == ("two\nlines a", 1.5, "demo")


async def test_a_small_answer_does_not_wait_for_an_acknowledgement() -> None:
    port = ai_platform.free_ports(1)[0]
    app = Application(Service(Settings("demo", port=port), [Route("/echo", echo, methods=["POST"])]))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group, httpx.AsyncClient(trust_env=False) as client:
        group.create_task(serve(app, stop))
        url, body = f"http://127.0.0.1:{port}/echo", {"name": "a"}
        listening = functools.partial(ai_platform.accepts_connections, port)
        await asyncio.to_thread(ai_platform.wait_until, listening, "the service")
        times = [(await client.post(url, json=body)).elapsed.total_seconds() for _ in range(20)]
        stop.set()
    # With Nagle's algorithm each takes 40 ms and more; the fastest of many is little disturbed by a busy machine.
    assert min(times) < 0.03


def test_a_port_that_is_taken_ends_the_process_with_the_reason() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("port", ["", "0", "65536", "http", "-1"])
def test_a_port_that_is_none_ends_the_process_with_the_reason(port: str) -> None:
    with pytest.raises(BadSetting, match="PORT must be a port"):
        Settings.read("demo", {"PORT": port})


@pytest.mark.parametrize("value", ["abc", "0", "-1", "nan"])
def test_a_number_that_is_none_ends_the_process_with_the_reason(value: str) -> None:
    with pytest.raises(BadSetting, match="QUEUE_WARNING must be"):
        Settings.read("demo", {"PORT": "1", "QUEUE_WARNING": value}).number("QUEUE_WARNING", 1.0)


def test_data_is_kept_below_the_users_state_folder_and_never_in_the_checkout() -> None:
    assert str(Settings.read("demo", {"PORT": "1", "HOME": "/home/u"}).data_dir) == (
        "/home/u/.local/state/citadel/ai-platform/demo"
    )
    named = Settings.read("demo", {"PORT": "1", "XDG_STATE_HOME": "/s", "HOME": "/home/u"}).data_dir
    assert str(named) == "/s/citadel/ai-platform/demo"
    assert not named.is_relative_to(ai_platform.EXAMPLE)
