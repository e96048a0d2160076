"""Requests that a page of another site can make a browser send, and bodies that are not taken."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import seed_schemas as seed
from api_site import API, QuietSite, keys_in, quiet_site, validated
from consul_process import ConsulSpace

from citadel_consul.api.guard import MAX_BODY_BYTES, known_hosts, split_host

pytestmark = pytest.mark.consul
ALL = {"services": ["all"]}


@pytest.fixture
async def quiet(consul: ConsulSpace) -> AsyncIterator[QuietSite]:
    async with quiet_site(consul) as site:
        yield site


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("127.0.0.2", 200),
        ("[::1]:8000", 200),
        ("192.0.2.7:80", 200),
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("api.localhost:8000", 200),
        ("n1:8000", 200),
        ("citadel-orchestrator.service.consul:8000", 200),
        ("rebound.example.com:8000", 421),
        ("localhost.example.com", 421),
        ("127.0.0.1.example.com:8000", 421),
        ("consul", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
async def test_only_hosts_that_nobody_else_can_be_are_answered_for(quiet: QuietSite, host: str, status: int) -> None:
    answer = await quiet.http.get(f"{API}/status", headers={"Host": host})
    assert answer.status_code == status
    if status != 200:
        assert validated(answer.json(), seed.PROBLEM)["type"] == "/docs#wrong-host"


@pytest.mark.parametrize("origin", ["http://example.com", "null", "http://127.0.0.1:9999", "https://[", "http://"])
async def test_a_request_of_another_sites_page_is_refused(quiet: QuietSite, origin: str) -> None:
    before = keys_in(quiet.space)
    for method, path in (("POST", "startup"), ("DELETE", "operations/20250715T143000123456-k7x2")):
        answer = await quiet.http.request(method, f"{API}/{path}", json=ALL, headers={"Origin": origin})
        assert answer.status_code == 403
        assert validated(answer.json(), seed.PROBLEM)["type"] == "/docs#cross-origin"
    assert keys_in(quiet.space) == before


async def test_a_page_of_our_own_may_ask(quiet: QuietSite) -> None:
    headers = {"Origin": "http://127.0.0.1:8000"}
    assert (await quiet.http.post(f"{API}/startup?wait=0", json=ALL, headers=headers)).status_code == 202


@pytest.mark.parametrize(
    "media_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", None]
)
async def test_a_body_has_to_be_json(quiet: QuietSite, media_type: str | None) -> None:
    before = keys_in(quiet.space)
    headers = {"Content-Type": media_type} if media_type else {}
    answer = await quiet.http.post(f"{API}/startup", content=b'{"services": ["all"]}', headers=headers)
    assert answer.status_code == 415
    assert validated(answer.json(), seed.PROBLEM)["type"] == "/docs#unsupported-media-type"
    assert keys_in(quiet.space) == before


async def test_an_empty_form_cancels_nothing(quiet: QuietSite) -> None:
    url = (await quiet.http.post(f"{API}/startup?wait=0", json=ALL)).headers["location"]
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await quiet.http.post(f"{url}/cancel", headers=headers)).status_code == 415
    assert await quiet.consul.kv_get(quiet.keys.cancel(url.rpartition("/")[2])) is None


async def test_json_may_name_its_character_set(quiet: QuietSite) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    answer = await quiet.http.post(f"{API}/startup?wait=0", content=b'{"services": ["all"]}', headers=headers)
    assert answer.status_code == 202


async def test_a_body_without_end_is_not_read_to_its_end(quiet: QuietSite) -> None:
    answer = await quiet.http.post(
        f"{API}/startup", content=b" " * (MAX_BODY_BYTES + 1), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413
    assert validated(answer.json(), seed.PROBLEM)["type"] == "/docs#body-too-large"


async def test_every_answer_forbids_caching_sniffing_and_framing(quiet: QuietSite) -> None:
    for path in ("/docs", f"{API}/status", "/nix", f"{API}/operations/nix"):
        headers = (await quiet.http.get(path)).headers
        assert headers["cache-control"] == "no-store", path
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    refused = await quiet.http.get("/docs", headers={"Host": "example.com"})
    assert refused.headers["cache-control"] == "no-store"


def test_the_name_that_the_api_is_bound_to_is_known() -> None:
    hosts = known_hosts("Orc-01.Example.com:8000", "n1", ["api.example.com"])
    assert {"orc-01.example.com", "n1", "api.example.com", "localhost"} <= hosts


@pytest.mark.parametrize(
    ("authority", "host"), [("a:1", "a"), ("[::1]:8", "::1"), ("A.B", "a.b"), ("[::1", ""), ("", ""), ("a:x", "a")]
)
def test_the_host_is_told_from_the_port(authority: str, host: str) -> None:
    assert split_host(authority) == host
