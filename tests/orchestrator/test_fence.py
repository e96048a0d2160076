"""A leader writes by one function: the sources say so, and Consul refuses what that writes too late."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from consul_process import ConsulSpace

import citadel_consul.orchestrator
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.transaction import set_key
from citadel_consul.errors import LeadershipLost
from citadel_consul.orchestrator.fence import Fence

PACKAGE = Path(citadel_consul.orchestrator.__file__).parent
WRITING = {"transact", "kv_put", "kv_delete", "kv_delete_prefix"}
ALLOWED = {
    ("fence.py", "transact"),
    ("handover.py", "kv_put"),  # an operator's request for another leader: who asks does not lead
}


def writes(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in WRITING:
            yield path.name, node.attr


def test_nothing_but_the_fence_writes_as_leader() -> None:
    assert {found for path in PACKAGE.glob("*.py") for found in writes(path)} == ALLOWED


@pytest.mark.consul
async def test_a_write_behind_a_lost_lock_is_refused_and_writes_nothing(consul: ConsulSpace) -> None:
    leader, key = consul.prefix + "leader", consul.prefix + "events/one"
    async with ConsulClient(parse_address(consul.address)) as client:
        mine, other = [await client.session_create(name, 10.0) for name in ("mine", "other")]
        assert await client.kv_put(leader, b"mine", acquire=mine)
        fence = Fence(client, leader, mine)
        await fence.write([set_key(key, b"1")])
        assert await client.kv_put(leader, b"", release=mine)
        assert await client.kv_put(leader, b"other", acquire=other)
        with pytest.raises(LeadershipLost):
            await fence.write([set_key(key, b"2")])
        entry = await client.kv_get(key)
        assert entry is not None
        assert entry.value == b"1"
