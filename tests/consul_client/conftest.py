"""A client of the shared Consul."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from consul_process import ConsulSpace

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient


@pytest.fixture
async def client(consul: ConsulSpace) -> AsyncIterator[ConsulClient]:
    async with ConsulClient(parse_address(consul.address)) as opened:
        yield opened
