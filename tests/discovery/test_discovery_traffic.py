"""Callers notice nothing while instances and Consul die under traffic. The long version is tests/bench/discovery.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from consul_process import ConsulProcess, ConsulSpace
from traffic import Record, fleet, library_client, traffic

pytestmark = [pytest.mark.consul, pytest.mark.long]

CLIENTS = 8
PER_SECOND = 60.0  # little, because the machine that runs the tests has other work; 500 in the benchmark


async def test_no_repeatable_request_fails_while_instances_die_hang_drain_and_move(consul: ConsulSpace) -> None:
    record = Record()
    shoppers = traffic(lambda: library_client(consul), CLIENTS, PER_SECOND, record)
    async with fleet(consul, record) as instances, shoppers:
        await asyncio.sleep(0.5)
        await instances.torment(14.0)
    assert record.failures == [], record.report
    assert len(record.seconds) > 14 * PER_SECOND / 2
    assert len(record.served) >= 6, record.report  # instances were replaced under way, and found


async def test_no_request_of_any_kind_fails_during_a_rolling_restart(consul: ConsulSpace) -> None:
    record = Record()
    shoppers = traffic(lambda: library_client(consul), CLIENTS, PER_SECOND, record, ("GET", "POST"))
    async with fleet(consul, record) as instances, shoppers:
        await asyncio.sleep(0.5)
        await instances.restart_each()
        await asyncio.sleep(0.5)
    assert record.failures == [], record.report
    assert len(record.served) == 6, record.report


async def test_no_request_fails_while_consul_is_gone_or_when_it_comes_back_without_memory(
    new_consul: Callable[..., ConsulProcess],
) -> None:
    server, record = new_consul(), Record()
    shoppers = traffic(lambda: library_client(server), CLIENTS, PER_SECOND, record)
    async with fleet(server, record) as instances, shoppers:
        await asyncio.sleep(0.5)
        record.happened("Consul is killed")
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(3.0)
        await asyncio.to_thread(server.start)
        record.happened("Consul is back, and knows nobody")
        back = time.monotonic()
        for one in instances.up:
            await asyncio.to_thread(one.until_passing)
        record.happened("all are registered again")
        assert time.monotonic() - back < 5, record.report
        # What happens from now on is seen again.
        await instances.drain()
        await asyncio.sleep(0.5)
    assert record.failures == [], record.report
