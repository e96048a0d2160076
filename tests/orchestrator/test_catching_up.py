"""An operation is about what was written before it, whichever watch of its leader comes first: on a real Consul."""

from __future__ import annotations

import asyncio

import pytest
from consul_process import ConsulSpace

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.api import Indexed
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.core.model import ProcessBackend, ServiceSpec
from citadel_consul.core.operation import ALL, Kind, Options
from citadel_consul.core.snapshot import Defaults
from citadel_consul.orchestrator.orchestrator import Orchestrator, OrchestratorConfig
from citadel_consul.store import documents
from citadel_consul.store.keys import Keys
from citadel_consul.store.requests import submit

pytestmark = pytest.mark.consul


class SlowWatch(ConsulClient):
    """A client whose watch of one prefix tells of no change, as one that waits out its backoff after an outage."""

    slow = ""

    async def kv_list(
        self, prefix: str, index: int | None = None, wait_seconds: float | None = None, **how: object
    ) -> Indexed[tuple[KVEntry, ...]]:
        if prefix == self.slow and index is not None:
            await asyncio.Event().wait()
        return await super().kv_list(prefix, index, wait_seconds, **how)  # type: ignore[arg-type]


async def test_an_operation_begins_with_what_was_applied_before_it(consul: ConsulSpace) -> None:
    keys = Keys(consul.stack)
    async with SlowWatch(parse_address(consul.address)) as client, asyncio.timeout(20):
        client.slow = keys.specs
        orchestrator = Orchestrator(client, OrchestratorConfig(consul.stack, "n1", "127.0.0.1:8000", Defaults()))
        running = asyncio.ensure_future(orchestrator.run())
        try:
            while not orchestrator.turns.turns:  # noqa: ASYNC110  # the leader has read everything by its first turn
                await asyncio.sleep(0.01)
            spec = ServiceSpec("web", type="test", nodes=("n1",), backend=ProcessBackend(command=("x",)))
            await client.kv_put(keys.spec("web"), documents.SPEC.encode(spec))
            await submit(client, keys, Kind.STARTUP, (ALL,), Options(), requested_by="test")
            orders: Indexed[KVEntry | None] = Indexed(0, None)
            while orders.value is None:
                orders = await client.kv_read(keys.desired_of("n1"), orders.index or None, 1.0)
            assert documents.DESIRED.decode(orders.value.value).instances["web"].run
        finally:
            running.cancel()
            await asyncio.wait({running})
