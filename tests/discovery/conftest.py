"""A resolver of the shared Consul."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from consul_process import ConsulSpace

from citadel_consul.consul.address import parse_address
from citadel_consul.discovery.resolver import Resolver


@pytest.fixture
async def resolver(consul: ConsulSpace) -> AsyncIterator[Resolver]:
    async with Resolver(parse_address(consul.address)) as opened:
        yield opened
