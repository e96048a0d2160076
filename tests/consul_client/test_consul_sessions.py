from __future__ import annotations

import asyncio

import pytest
from consul_process import ConsulSpace

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.transaction import lock
from citadel_consul.errors import ConsulUnavailable

pytestmark = pytest.mark.consul

GONE = "11111111-2222-3333-4444-555555555555"


async def test_a_session_is_what_was_asked_for(client: ConsulClient, consul: ConsulSpace) -> None:
    session = await client.session_create("mine", 12.5, lock_delay_seconds=0.25, behavior="delete", node=consul.node)
    info = await client.session_info(session)
    assert info is not None
    assert (info.id, info.name, info.node, info.behavior) == (session, "mine", consul.node, "delete")
    assert (info.lock_delay_seconds, info.ttl) == (0.25, "12500ms")
    assert (info.node_checks, info.service_checks) == (("serfHealth",), ())


async def test_a_session_has_no_lock_delay_unless_asked_for(client: ConsulClient) -> None:
    info = await client.session_info(await client.session_create("mine"))
    assert info is not None
    assert (info.lock_delay_seconds, info.ttl) == (0.0, "")


async def test_a_renewal_says_whether_the_session_is_there(client: ConsulClient) -> None:
    session = await client.session_create("mine", 10)
    assert await client.session_renew(session)
    await client.session_destroy(session)
    await client.session_destroy(session)
    assert not await client.session_renew(session)
    assert await client.session_info(session) is None
    assert await client.session_info(GONE) is None


async def test_a_session_binds_to_a_check_that_was_registered_a_moment_ago(client: ConsulClient) -> None:
    for number in range(10):
        check = f"fresh-{number}"
        await client.register_service(
            {"Name": "bound", "ID": check, "Check": {"CheckID": check, "TTL": "60s", "Status": "passing"}}
        )
        info = await client.session_info(await client.session_create("mine", 10, service_checks=(check,)))
        assert info is not None
        assert info.service_checks == (check,)
        assert info.node_checks == ("serfHealth",)


async def test_a_session_does_not_bind_to_a_check_that_never_comes(client: ConsulClient) -> None:
    with pytest.raises(ConsulUnavailable, match="no-such-check"):
        await client.session_create("mine", 10, service_checks=("no-such-check",))


async def test_a_failing_service_check_frees_the_lock(client: ConsulClient, consul: ConsulSpace) -> None:
    key = consul.prefix + "lock"
    await client.register_service({"Name": "bound", "Check": {"CheckID": "bound", "TTL": "60s", "Status": "passing"}})
    session = await client.session_create("mine", 10, service_checks=("bound",))
    await client.transact([lock(key, b"", session)])
    held = await client.kv_read(key)
    await client.check_update("bound", "critical")
    async with asyncio.timeout(10):
        freed = await client.kv_read(key, held.index, 9)
    assert freed.value is not None
    assert freed.value.session is None
    assert await client.session_info(session) is None


async def test_an_explicit_destroy_starts_the_lock_delay_and_a_release_before_it_does_not(
    client: ConsulClient, consul: ConsulSpace
) -> None:
    key = consul.prefix + "lock"
    other = await client.session_create("other")
    first = await client.session_create("first", lock_delay_seconds=30)
    assert await client.kv_put(key, b"", acquire=first)
    assert await client.kv_put(key, b"", release=first)
    await client.session_destroy(first)
    assert await client.kv_put(key, b"", acquire=other)
    assert await client.kv_put(key, b"", release=other)
    second = await client.session_create("second", lock_delay_seconds=30)
    assert await client.kv_put(key, b"", acquire=second)
    await client.session_destroy(second)
    assert not await client.kv_put(key, b"", acquire=other)
