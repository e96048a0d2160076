"""Callers notice nothing while instances and Consul die under traffic. The long version is tests/bench/discovery.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from consul_process import ConsulProcess
from fleet import fleet
from record import Record
from traffic import CLIENTS, traffic

pytestmark = [pytest.mark.consul, pytest.mark.long]

PER_SECOND = 60.0  # little, because the machine that runs the tests has other work; 500 in the benchmark
CONVERGED_SECONDS = 5.0

NewConsul = Callable[..., ConsulProcess]


async def test_no_repeatable_request_fails_while_instances_die_hang_drain_and_move(new_consul: NewConsul) -> None:
    server, record = new_consul(), Record()
    async with fleet(server, record) as instances, traffic(server, record, PER_SECOND):
        await asyncio.sleep(0.5)
        await instances.torment(14.0)
    assert record.failures == [], record.report
    assert len(record.seconds) > 14 * PER_SECOND / 4
    assert len(record.served) >= 6, record.report  # instances were replaced under way, and found


async def test_no_request_of_any_kind_fails_during_a_rolling_restart(new_consul: NewConsul) -> None:
    server, record = new_consul(), Record()
    async with fleet(server, record) as instances, traffic(server, record, PER_SECOND, methods=("GET", "POST")):
        await asyncio.sleep(0.5)
        await instances.restart_each()
        await asyncio.sleep(0.5)
    assert record.failures == [], record.report
    assert len(record.served) == 6, record.report


async def test_no_request_fails_while_consul_is_gone_or_when_it_comes_back_without_memory(
    new_consul: NewConsul,
) -> None:
    server, record = new_consul(), Record()
    async with fleet(server, record) as instances, traffic(server, record, PER_SECOND):
        await asyncio.sleep(0.5)
        record.happened("Consul is killed")
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(1.0)
        await instances.replace_unseen()
        await asyncio.sleep(2.0)
        await asyncio.to_thread(server.start)
        record.happened("Consul is back, and knows nobody")
        back = time.monotonic()
        await asyncio.sleep(CONVERGED_SECONDS)
    assert record.failures == [], record.report
    assert record.converged({f"127.0.0.1:{one.port}" for one in instances.up}, back) < CONVERGED_SECONDS, record.report
    # One outage, one reconnect: each client's only watch has opened two connections in all.
    assert [list(one["reconnects"].values()) for one in record.statistics] == [[1]] * CLIENTS
    assert [one["connections"] for one in record.statistics] == [2] * CLIENTS
