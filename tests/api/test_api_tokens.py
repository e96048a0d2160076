"""Whose token it is: on a Consul that denies by default, the API can do what its caller may, and no more."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import httpx
import pytest
import seed_schemas as seed
from api_site import API, EDGES, TYPES, asking, orchestrator_of, specs, validated, write_stack
from consul_process import ConsulProcess

from citadel_consul.api.app import create_app
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.client import ConsulClient
from citadel_consul.rendering.policy import Role, render_policy
from citadel_consul.store.keys import Keys

pytestmark = pytest.mark.consul
STACK = "main"
ALL = {"services": ["all"]}


@dataclass(frozen=True)
class GuardedSite:
    """An API whose process has Consul's management token, and tokens of callers that have less."""

    http: httpx.AsyncClient
    process: ConsulClient
    operator: str
    reader: str
    stranger: str


@pytest.fixture
async def guarded(new_consul: Callable[..., ConsulProcess], consul_binary: ConsulBinary) -> AsyncIterator[GuardedSite]:
    root = str(uuid.uuid4())
    name = "initial_management" if consul_binary.release >= (1, 11) else "master"  # the same thing, renamed
    acl = {"enabled": True, "default_policy": "deny", "tokens": {name: root, "agent": root}}
    server = new_consul("n1", {"acl": acl})
    address = replace(parse_address(server.address), token=root)
    async with ConsulClient(address) as process:
        await write_stack(process, Keys(STACK), specs(range(21000, 21000 + len(TYPES))).values(), EDGES)
        operator = _token(server, root, render_policy(Role.OPERATOR, STACK))
        reader = _token(server, root, render_policy(Role.READ_ONLY, STACK))
        stranger = _token(server, root, render_policy(Role.OPERATOR, "other"))
        async with asking(create_app(process, orchestrator_of(process, STACK))) as http:
            yield GuardedSite(http, process, operator, reader, stranger)


def _token(server: ConsulProcess, root: str, rules: str) -> str:
    name = uuid.uuid4().hex
    server.request("PUT", "/v1/acl/policy", {"Name": name, "Rules": rules}, root)
    token: str = server.request("PUT", "/v1/acl/token", {"Policies": [{"Name": name}]}, root)["SecretID"]
    return token


async def _operations(site: GuardedSite) -> int:
    return len(await site.process.kv_keys(Keys(STACK).operations))


@pytest.mark.parametrize("header", ["X-Consul-Token", "Authorization"])
async def test_an_operator_reads_and_requests_with_its_own_token(guarded: GuardedSite, header: str) -> None:
    token = guarded.operator if header == "X-Consul-Token" else f"Bearer {guarded.operator}"
    status = await guarded.http.get(f"{API}/status", headers={header: token})
    assert validated(status.json(), seed.STATUS_ANSWER)["orchestrator_status"]["managed_services"] == len(TYPES)
    answer = await guarded.http.post(f"{API}/startup?wait=0", json=ALL, headers={header: token})
    assert answer.status_code == 202
    assert await _operations(guarded) == 1
    cancelled = await guarded.http.delete(answer.headers["location"], headers={header: token})
    assert cancelled.status_code == 202


async def test_a_reader_reads_and_may_request_nothing(guarded: GuardedSite) -> None:
    headers = {"X-Consul-Token": guarded.reader}
    assert (await guarded.http.get(f"{API}/services", headers=headers)).status_code == 200
    for path, body in (("startup", ALL), ("restart", {"service": "redis"}), ("recover", {"service": "redis"})):
        answer = await guarded.http.post(f"{API}/{path}", json=body, headers=headers)
        assert answer.status_code == 403
        assert validated(answer.json(), seed.PROBLEM)["type"] == "/docs#permission-denied"
        assert guarded.reader not in answer.text
    assert await _operations(guarded) == 0


@pytest.mark.parametrize("who", ["nobody", "stranger", "unknown"])
async def test_the_processs_own_token_is_lent_to_nobody(
    guarded: GuardedSite, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", guarded.process.address.token or "")
    token = {"stranger": guarded.stranger, "unknown": str(uuid.uuid4())}.get(who)
    headers = {"X-Consul-Token": token} if token else {}
    for method, path, body in (
        ("GET", "status", None),
        ("GET", "services", None),
        ("GET", "operations", None),
        ("POST", "startup", ALL),
        ("POST", "debug/test-recovery", None),
    ):
        answer = await guarded.http.request(method, f"{API}/{path}", json=body, headers=headers)
        assert answer.status_code == 403, path
        assert "X-Consul-Token" in validated(answer.json(), seed.PROBLEM)["detail"]
    assert await _operations(guarded) == 0


async def test_a_scrape_without_a_token_tells_of_the_process_alone(guarded: GuardedSite) -> None:
    text = (await guarded.http.get("/metrics")).text
    assert "citadel_stack_readable 0.0" in text
    assert "qdrant" not in text
    with_token = await guarded.http.get("/metrics", headers={"Authorization": f"Bearer {guarded.reader}"})
    assert 'service="qdrant"' in with_token.text


async def test_probes_need_no_token(guarded: GuardedSite) -> None:
    for path in ("/livez", "/readyz", "/docs", "/openapi.json"):
        assert (await guarded.http.get(path)).status_code == 200, path


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": "Bearer 1d66", "X-Consul-Token": "2c57"},
        {"X-Consul-Token": "3b48 4a39"},
    ],
)
async def test_what_cannot_be_a_token_is_bad_input(guarded: GuardedSite, headers: dict[str, str]) -> None:
    answer = await guarded.http.get(f"{API}/status", headers=headers)
    assert answer.status_code == 422
    assert "errors" in validated(answer.json(), seed.PROBLEM)
    for value in headers.values():
        assert value.split()[-1] not in answer.text


async def test_a_token_in_the_url_is_not_taken(guarded: GuardedSite) -> None:
    """URLs end up in logs."""
    assert (await guarded.http.get(f"{API}/status?token={guarded.operator}")).status_code == 403
