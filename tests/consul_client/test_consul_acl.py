"""What a token may not do, in every shape that Consul says it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

import pytest
from consul_process import ConsulProcess

from citadel_consul.consul.address import ConsulAddress
from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.transaction import cas, check_session, get, lock, set_key
from citadel_consul.errors import LeadershipLost, NotFound, PermissionDenied

pytestmark = pytest.mark.consul

ROOT = "11111111-aaaa-bbbb-cccc-222222222222"
UNKNOWN = "99999999-aaaa-bbbb-cccc-222222222222"


@pytest.fixture
async def guarded(
    new_consul: Callable[..., ConsulProcess], consul_binary: ConsulBinary
) -> AsyncIterator[tuple[ConsulProcess, ConsulClient]]:
    root_token = "initial_management" if consul_binary.release >= (1, 11) else "master"
    acl = {"enabled": True, "default_policy": "deny", "tokens": {root_token: ROOT, "agent": ROOT}}
    server = new_consul(config={"acl": acl, "primary_datacenter": "dc1"})
    async with ConsulClient(ConsulAddress(port=server.port, token=ROOT)) as root:
        yield server, root


def token_of(server: ConsulProcess, rules: str) -> str:
    server.request("PUT", "/v1/acl/policy", {"Name": "limited", "Rules": rules}, ROOT)
    token: str = server.request("PUT", "/v1/acl/token", {"Policies": [{"Name": "limited"}]}, ROOT)["SecretID"]
    return token


async def test_a_denial_is_a_denial_whatever_call_it_meets(guarded: tuple[ConsulProcess, ConsulClient]) -> None:
    server, root = guarded
    session = await root.session_create("leader", node_checks=())
    await root.transact([lock("leader", b"", session), set_key("c/there", b"secret")])
    limited = root.with_token(token_of(server, 'key_prefix "a/" { policy = "write" }'))
    assert await limited.kv_put("a/b", b"")
    for call in (
        limited.kv_get("c/there"),
        limited.kv_put("c/there", b""),
        limited.kv_put("c/there", b"", cas=1),
        limited.kv_put("c/there", b"", acquire=session),
        limited.kv_delete("c/there"),
        limited.kv_delete_prefix("c/"),
        limited.transact([set_key("a/b", b""), set_key("c/there", b"")]),
        limited.transact([cas("c/there", b"", 1)]),
        # A leader that may not read its lock has not lost it.
        limited.transact([check_session("leader", session), set_key("a/b", b"")]),
        limited.session_create("x"),
        limited.session_renew(session),
        limited.agent_self(),
        limited.register_service({"Name": "web"}),
        limited.node_maintenance(True),
        limited.event_fire("x"),
    ):
        with pytest.raises(PermissionDenied):
            await call
    untouched = await root.kv_get("c/there")
    assert untouched is not None
    assert untouched.value == b"secret"


async def test_a_token_that_consul_does_not_know_is_denied_even_what_all_may_read(
    guarded: tuple[ConsulProcess, ConsulClient],
) -> None:
    _, root = guarded
    stranger = root.with_token(UNKNOWN)
    for call in (
        stranger.kv_list("a/"),
        stranger.transact([get("a")]),
        stranger.agent_services(),
        stranger.health_state("critical"),
        stranger.catalog_nodes(),
    ):
        with pytest.raises(PermissionDenied):
            await call


async def test_a_deposed_leader_with_every_right_has_lost_its_lock(
    guarded: tuple[ConsulProcess, ConsulClient],
) -> None:
    _, root = guarded
    session = await root.session_create("leader", node_checks=())
    with pytest.raises(LeadershipLost):
        await root.transact([check_session("leader", session), set_key("a", b"")])


async def test_what_may_not_be_listed_is_left_out_without_a_word(
    guarded: tuple[ConsulProcess, ConsulClient],
) -> None:
    server, root = guarded
    await root.kv_put("a/b", b"")
    await root.kv_put("c/d", b"")
    limited = root.with_token(token_of(server, 'key_prefix "a/" { policy = "read" }'))
    assert [entry.key for entry in (await limited.kv_list("")).value] == ["a/b"]
    assert (await limited.kv_list("c/")).value == ()


async def test_a_missing_check_or_service_is_told_from_an_outage_with_acls_on(
    guarded: tuple[ConsulProcess, ConsulClient],
) -> None:
    _, root = guarded
    with pytest.raises(NotFound):
        await root.check_update("no-such-check", "passing")
    await root.deregister_service("no-such-service")
    await root.deregister_check("no-such-check")


async def test_the_most_talkative_logging_does_not_show_the_token(
    guarded: tuple[ConsulProcess, ConsulClient], caplog: pytest.LogCaptureFixture
) -> None:
    _, root = guarded
    caplog.set_level(logging.DEBUG)
    await root.kv_put("a", b"")
    with pytest.raises(PermissionDenied):
        await root.with_token(UNKNOWN).kv_put("a", b"")
    assert ROOT not in caplog.text
    assert UNKNOWN not in caplog.text
