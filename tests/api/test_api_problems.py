"""Every error is a problem document: what is not there, what Consul says, what nobody thought of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import seed_schemas as seed
from api_site import API, EDGES, TYPES, QuietSite, asking, orchestrator_of, quiet_site, specs, validated, write_stack
from consul_process import ConsulProcess, ConsulSpace

from citadel_consul import errors
from citadel_consul.api import views
from citadel_consul.api.app import create_app
from citadel_consul.api.probes import PROBE_SECONDS
from citadel_consul.api.problems import ALL_KINDS, problem_of
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.store.keys import Keys

pytestmark = pytest.mark.consul
READS = ("status", "services", "health", "dependencies", "metrics", "debug/dependencies", "debug/health", "operations")
NewConsul = Callable[..., ConsulProcess]


@pytest.fixture
async def quiet(consul: ConsulSpace) -> AsyncIterator[QuietSite]:
    async with quiet_site(consul) as site:
        yield site


async def test_what_is_not_there_is_404(quiet: QuietSite) -> None:
    for path in ("/nix", f"{API}/nix", f"{API}/"):
        answer = await quiet.http.get(path)
        assert answer.status_code == 404
        assert validated(answer.json(), seed.PROBLEM)["type"] == "/docs#not-found"


async def test_a_wrong_method_is_405_and_names_the_right_ones(quiet: QuietSite) -> None:
    for method, path, allowed in (("PUT", "status", "GET"), ("GET", "startup", "POST"), ("DELETE", "health", "GET")):
        answer = await quiet.http.request(method, f"{API}/{path}")
        assert answer.status_code == 405
        assert answer.headers["allow"] == allowed
        assert validated(answer.json(), seed.PROBLEM)["type"] == "/docs#method-not-allowed"


async def test_without_consul_every_answer_is_503_and_says_when_to_try_again(new_consul: NewConsul) -> None:
    server = new_consul()
    async with ConsulClient(parse_address(server.address)) as client:
        keys = Keys("gone")
        await write_stack(client, keys, specs(range(21000, 21000 + len(TYPES))).values(), EDGES)
        async with asking(create_app(client, orchestrator_of(client, "gone"))) as http:
            assert (await http.get("/readyz")).status_code == 200
            server.kill()
            requests: list[tuple[str, str, object]] = [("GET", f"{API}/{path}", None) for path in READS]
            requests += [("POST", f"{API}/startup", {"services": ["all"]}), ("GET", "/readyz", None)]
            for method, path, body in requests:
                answer = await http.request(method, path, json=body)
                assert answer.status_code == 503, path
                assert int(answer.headers["retry-after"]) > 0
                assert validated(answer.json(), seed.PROBLEM)["type"] == "/docs#consul-unavailable"
            assert (await http.get("/livez")).status_code == 200
            assert "citadel_stack_readable 0.0" in (await http.get("/metrics")).text


async def test_consul_going_away_while_a_result_is_waited_for_leaves_the_address_of_the_operation(
    new_consul: NewConsul,
) -> None:
    """It was written, so a 503 would make the client ask for it twice."""
    server = new_consul()
    async with ConsulClient(parse_address(server.address)) as client:
        await write_stack(client, Keys("gone"), specs(range(21000, 21000 + len(TYPES))).values(), EDGES)
        app = create_app(client, orchestrator_of(client, "gone"))
        async with asking(app) as http:
            answer = await _ask_and_kill(http, server, client)
    assert answer.status_code == 202
    assert answer.headers["location"].startswith(f"{API}/operations/")


async def _ask_and_kill(http: httpx.AsyncClient, server: ConsulProcess, client: ConsulClient) -> httpx.Response:
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        asked = group.create_task(http.post(f"{API}/startup", json={"services": ["all"]}))
        while not await client.kv_keys(Keys("gone").operations):
            pass
        server.kill()
    return asked.result()


async def test_a_consul_that_hangs_makes_no_probe_hang(new_consul: NewConsul) -> None:
    server = new_consul()
    async with (
        ConsulClient(parse_address(server.address)) as client,
        asking(create_app(client, orchestrator_of(client, "gone"))) as http,
    ):
        server.suspend()
        try:
            async with asyncio.timeout(PROBE_SECONDS + 2):
                answer = await http.get("/readyz")
        finally:
            server.resume()
    assert answer.status_code == 503
    assert "no answer within 2 s" in validated(answer.json(), seed.PROBLEM)["detail"]


@pytest.mark.parametrize(
    ("inner", "status"),
    [
        ([errors.Refused("no"), errors.ConsulUnavailable("gone")], 409),
        ([ExceptionGroup("inner", [errors.ConsulUnavailable("gone")])], 503),
        ([errors.Refused("no"), RuntimeError("a bug")], 500),
    ],
)
async def test_tasks_that_failed_together_are_told_as_their_first_unless_one_is_a_bug(
    quiet: QuietSite, monkeypatch: pytest.MonkeyPatch, inner: list[Exception], status: int
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ExceptionGroup("tasks", inner)

    monkeypatch.setattr(views, "status_answer", broken)
    answer = await quiet.http.get(f"{API}/status")
    assert answer.status_code == status
    assert "bug" not in answer.text
    validated(answer.json(), seed.PROBLEM)


async def test_a_hand_broken_operation_is_told_and_breaks_nothing_else(quiet: QuietSite) -> None:
    identifier = "20250715T143000123456-k7x2"
    await quiet.consul.kv_put(quiet.keys.operation(identifier), b"{")
    answer = await quiet.http.get(f"{API}/operations/{identifier}")
    assert answer.status_code == 500
    problem = validated(answer.json(), seed.PROBLEM)
    assert problem["type"] == "/docs#unreadable-document"
    assert "is not JSON" in problem["detail"]
    status = (await quiet.http.get(f"{API}/status")).json()["orchestrator_status"]
    assert [(p["kind"], p["place"]) for p in status["problems"] if p["kind"] == "key"] == [
        ("key", quiet.keys.operation(identifier))
    ]


async def test_an_unexpected_error_tells_nothing_of_the_inside(
    quiet: QuietSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(views, "status_answer", broken)
    answer = await quiet.http.get(f"{API}/status")
    assert answer.status_code == 500
    assert validated(answer.json(), seed.PROBLEM)["type"] == "/docs#internal-error"
    assert "42" not in answer.text


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (errors.InvalidInput.at("a", "b"), 422, "invalid-input"),
        (errors.Refused("no"), 409, "refused"),
        (errors.PermissionDenied("no"), 403, "permission-denied"),
        (errors.NotFound("no"), 404, "not-found"),
        (errors.LeadershipLost("no"), 502, "consul-refused"),
        (errors.ConsulRefused("no"), 502, "consul-refused"),
        (errors.Conflict("no"), 409, "conflict"),
        (errors.ConsulUnavailable("no"), 503, "consul-unavailable"),
        (errors.NoLeader("no"), 504, "no-leader"),
        (errors.CitadelError("no"), 500, "internal-error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_error_of_ours_has_a_status(error: errors.CitadelError, status: int, name: str) -> None:
    answer = problem_of(error, "/x")
    assert answer.status_code == status
    assert f'"/docs#{name}"'.encode() in answer.body
    assert ("retry-after" in answer.headers) is (name in ("consul-unavailable", "conflict"))


def test_no_two_kinds_of_problem_share_a_name() -> None:
    assert len({kind.name for kind in ALL_KINDS}) == len(ALL_KINDS)
