"""What Consul says of a token, in the ways in which versions differ."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from citadel_consul.consul.address import ConsulAddress
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.identity import Right, Token
from citadel_consul.consul.transport import HttpxTransport
from citadel_consul.errors import ConsulRefused, ConsulUnavailable, PermissionDenied

READ, WRITE = Right("key", "read", "citadel/main/"), Right("session", "write")


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> ConsulClient:
    address = ConsulAddress(token="secret")
    return ConsulClient(address, transport=HttpxTransport(address, transport=httpx.MockTransport(answer)))


def always(status: int, body: object) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["X-Consul-Token"] == "secret"
        assert "secret" not in str(request.url)
        return httpx.Response(status, json=body)

    return answer


async def test_a_token_is_told_without_its_secret() -> None:
    body = {
        "AccessorID": "a-1", "SecretID": "secret", "Description": "for CI",
        "Policies": [{"ID": "1", "Name": "operator"}],
        "Roles": [{"ID": "2", "Name": "ops"}], "ExpirationTime": "2030-01-01T00:00:00Z",
    }  # fmt: skip
    token = await client_of(always(200, body)).token_self()
    assert token == Token("a-1", "for CI", ("operator",), ("ops",), "2030-01-01T00:00:00Z")
    assert "secret" not in repr(token)


async def test_a_token_without_any_grants_is_told_too() -> None:
    token = await client_of(always(200, {"AccessorID": "a-1", "Policies": None})).token_self()
    assert token == Token("a-1", "", (), (), None)


async def test_without_access_control_there_is_no_token_and_everything_is_allowed() -> None:
    client = client_of(always(401, "ACL support disabled"))
    assert await client.token_self() is None
    assert await client.allowed([READ, WRITE]) == {READ: True, WRITE: True}


async def test_a_token_that_consul_does_not_know_is_denied() -> None:
    client = client_of(always(403, "ACL not found"))
    with pytest.raises(PermissionDenied):
        await client.token_self()
    with pytest.raises(PermissionDenied):
        await client.allowed([READ])


async def test_rights_are_asked_for_at_once_and_told_one_by_one() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path) == ("POST", "/v1/internal/acl/authorize")
        return httpx.Response(200, json=[{"Allow": True}, {"Allow": False}])

    assert await client_of(answer).allowed([READ, WRITE]) == {READ: True, WRITE: False}


@pytest.mark.parametrize("status", [404, 405])
async def test_a_consul_that_cannot_be_asked_for_rights_leaves_them_unknown(status: int) -> None:
    assert await client_of(always(status, "no such endpoint")).allowed([READ]) is None


async def test_an_answer_that_fits_no_question_leaves_them_unknown() -> None:
    assert await client_of(always(200, [])).allowed([READ]) is None


async def test_other_refusals_and_absence_are_what_they_are() -> None:
    with pytest.raises(ConsulRefused):
        await client_of(always(400, "bad")).allowed([READ])
    with pytest.raises(ConsulUnavailable):
        await client_of(always(500, "no leader")).allowed([READ])


def test_a_right_reads_as_consul_s_rules_do() -> None:
    assert str(READ) == 'key:read on "citadel/main/"'
    assert str(WRITE) == "session:write"
