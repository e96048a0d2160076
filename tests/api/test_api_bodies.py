"""Bad requests: each is refused with a problem document that says what is wrong, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import seed_schemas as seed
from api_site import API, QuietSite, keys_in, quiet_site, validated
from consul_process import ConsulSpace

pytestmark = pytest.mark.consul


@pytest.fixture
async def quiet(consul: ConsulSpace) -> AsyncIterator[QuietSite]:
    async with quiet_site(consul) as site:
        yield site


class Bad(NamedTuple):
    """A request, and what is answered: status, place of the first error (None: no list), and words of the detail."""

    name: str
    path: str
    body: object
    status: int
    place: str | None
    words: str
    raw: bytes | None = None


def _wait(value: str) -> Bad:
    return Bad(f"wait={value}", f"startup?wait={value}", {"services": ["all"]}, 422, "wait", "wait: ")


BAD_REQUESTS = (
    Bad("no body", "startup", None, 422, "", "is missing", b""),
    Bad("no JSON", "startup", None, 400, None, "the body is not JSON", b'{"services": ["all"]'),
    Bad("not UTF-8", "startup", None, 400, None, "", b"\xff\xfe{}"),
    Bad("a list", "startup", ["all"], 422, "", "dictionary"),
    Bad("null", "startup", None, 422, "", "", b"null"),
    Bad("empty object", "startup", {}, 422, "services", "services: is missing"),
    Bad("no services", "startup", {"services": []}, 422, "services", "at least 1"),
    Bad("services not a list", "startup", {"services": "all"}, 422, "services", "valid list"),
    Bad("a number for a service", "startup", {"services": ["redis", 7]}, 422, "services[1]", "valid string"),
    Bad("a bad name", "startup", {"services": ["Redis"]}, 422, "services[0]", "'Redis' is not a name"),
    Bad("a path for a name", "startup", {"services": ["../../x"]}, 422, "services[0]", "is not a name"),
    Bad("a bad node", "startup", {"services": ["redis@"]}, 422, "services[0]", "is not a name of a node"),
    Bad("a very long name", "startup", {"services": ["a" * 64]}, 422, "services[0]", "at most 63 characters"),
    Bad("an unknown field", "startup", {"services": ["all"], "force": True}, 422, "force", "force: unknown field"),
    Bad("an unknown policy", "startup", {"services": ["all"], "on_failure": "panic"}, 422, "on_failure", "'rollback'"),
    Bad("no time", "startup", {"services": ["all"], "timeout_seconds": 0}, 422, "timeout_seconds", "greater than 0"),
    Bad("time as text", "startup", {"services": ["all"], "timeout_seconds": "5m"}, 422, "timeout_seconds", "number"),
    Bad(
        "endless time", "startup", None, 422, "timeout_seconds", "", b'{"services": ["all"], "timeout_seconds": 1e999}'
    ),
    Bad("a long reason", "startup", {"services": ["all"], "reason": "x" * 501}, 422, "reason", "at most 500"),
    Bad(
        "an unknown service", "startup", {"services": ["redis", "mongo"]}, 422, "services[1]", "unknown service 'mongo'"
    ),
    Bad("an unknown node", "startup", {"services": ["redis@n9"]}, 422, "services[0]", "no instance on node 'n9'"),
    Bad("graceful as text", "shutdown", {"services": ["all"], "graceful": "yes"}, 422, "graceful", "valid boolean"),
    Bad("cascade as number", "shutdown", {"services": ["all"], "cascade": 1}, 422, "cascade", "valid boolean"),
    Bad(
        "shutdown with a policy", "shutdown", {"services": ["all"], "on_failure": "keep"}, 422, "on_failure", "unknown"
    ),
    Bad("shutdown of the unknown", "shutdown", {"services": ["nix"]}, 422, "services[0]", "unknown service 'nix'"),
    Bad("restart of nothing", "restart", {}, 422, "service", "service: is missing"),
    Bad("restart of services", "restart", {"services": ["redis"]}, 422, "service", "services: unknown field"),
    Bad("restart of a list", "restart", {"service": ["redis"]}, 422, "service", "valid string"),
    Bad(
        "rolling with cascade", "restart", {"service": "redis", "rolling": True, "cascade": True}, 422, "", "keeps them"
    ),
    Bad("subtree without rolling", "restart", {"service": "redis", "subtree": True}, 422, "", "need rolling"),
    Bad("drain time without rolling", "restart", {"service": "redis", "drain_seconds": 0}, 422, "", "need rolling"),
    Bad("drain of nothing", "drain", {"services": []}, 422, "services", "at least 1"),
    Bad("drain for ever", "drain", {"services": ["redis"], "drain_seconds": 1e9}, 422, "drain_seconds", "86400"),
    Bad("restart of the unknown", "restart", {"service": "nix"}, 422, "service", "unknown service 'nix'"),
    Bad("recovery of all", "recover", {"service": "all"}, 422, "service", "one service at a time"),
    Bad("recovery of the unknown", "recover", {"service": "nix"}, 422, "service", "unknown service 'nix'"),
    Bad("recovery with cascade", "recover", {"service": "redis", "cascade": True}, 422, "cascade", "unknown field"),
    Bad("test of the unknown", "debug/test-recovery", {"service": "nix"}, 422, "service", "unknown service"),
    Bad("execution of nothing", "debug/test-recovery", {"execute": True}, 422, "", "execute needs a service"),
    _wait("-1"),
    _wait("soon"),
    _wait("nan"),
    _wait("inf"),
    _wait("3601"),
)


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=lambda bad: bad.name)
async def test_a_bad_request_is_a_problem_and_writes_nothing(quiet: QuietSite, bad: Bad) -> None:
    before = keys_in(quiet.space)
    content = bad.raw if bad.raw is not None else json.dumps(bad.body).encode()
    answer = await quiet.http.post(f"{API}/{bad.path}", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == bad.status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = validated(answer.json(), seed.PROBLEM)
    assert problem["status"] == bad.status
    assert problem["instance"] == f"{API}/{bad.path.partition('?')[0]}"
    assert bad.words in problem["detail"]
    errors: list[dict[str, Any]] = problem.get("errors", [])
    assert (errors[0]["place"] if errors else None) == bad.place
    assert keys_in(quiet.space) == before


async def test_all_that_is_wrong_with_a_body_is_told_at_once(quiet: QuietSite) -> None:
    body = {"services": ["Redis", "ok", "-x"], "cascade": "no", "force": True, "timeout_seconds": -1}
    problem = (await quiet.http.post(f"{API}/shutdown", json=body)).json()
    places = [error["place"] for error in problem["errors"]]
    assert sorted(places) == ["cascade", "force", "services[0]", "services[2]", "timeout_seconds"]


async def test_all_unknown_services_are_told_at_once(quiet: QuietSite) -> None:
    problem = (await quiet.http.post(f"{API}/startup", json={"services": ["a", "redis", "b"]})).json()
    assert [(e["place"], e["message"]) for e in problem["errors"]] == [
        ("services[0]", "unknown service 'a'"),
        ("services[2]", "unknown service 'b'"),
    ]


async def test_a_stack_without_services_refuses_every_request(quiet: QuietSite) -> None:
    await quiet.consul.kv_delete_prefix(quiet.keys.root)
    for path, body in {
        "startup": {"services": ["all"]},
        "shutdown": {"services": ["all"]},
        "restart": {"service": "redis"},
        "drain": {"services": ["redis"]},
        "recover": {"service": "redis"},
    }.items():
        answer = await quiet.http.post(f"{API}/{path}", json=body)
        assert answer.status_code == 409, path
        assert "has no services" in answer.json()["detail"]
    assert keys_in(quiet.space) == {}
