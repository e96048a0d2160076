"""What every endpoint works with: Consul as the caller, the orchestrator that answers, and a fair share of the pool.

The API shares one pool of connections to Consul with the control loop, which must never wait for one (its lock hangs
on it). Hence so many readings at a time and so many waiting requests, and no more: past that, readings take turns
and a request is answered with 202 at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fastapi import Request

from citadel_consul.api.meter import Meter
from citadel_consul.api.reading import read_stack
from citadel_consul.consul.client import ConsulClient
from citadel_consul.errors import InvalidInput
from citadel_consul.orchestrator.orchestrator import Orchestrator
from citadel_consul.store.keys import Keys
from citadel_consul.store.state import StackState

READINGS_AT_A_TIME = 2
"""Each takes ten connections; a pool has 48."""

WAITING_AT_A_TIME = 8
_BEARER = "bearer "


@dataclass(slots=True)
class Site:
    """The surroundings of the endpoints; one for each application."""

    client: ConsulClient
    orchestrator: Orchestrator
    meter: Meter
    waiting: int = 0
    readings: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READINGS_AT_A_TIME))

    @property
    def keys(self) -> Keys:
        return Keys(self.orchestrator.config.stack)

    async def read(self, client: ConsulClient) -> StackState:
        """The stack as ``client`` may see it."""
        config = self.orchestrator.config
        async with self.readings:
            return await read_stack(client, config.stack, config.defaults)

    @contextmanager
    def place_to_wait(self) -> Iterator[bool]:
        """Whether one more request may wait for its result; the place is taken for the time of the block."""
        free = self.waiting < WAITING_AT_A_TIME
        self.waiting += free
        try:
            yield free
        finally:
            self.waiting -= free


def site_of(request: Request) -> Site:
    """The site of the application that a request came to."""
    site: Site = request.app.state.site
    return site


def caller_of(request: Request) -> ConsulClient:
    """Consul with the caller's token, and with none if the caller gave none: never with that of this process.

    Raises InvalidInput for what cannot be a token.
    """
    return site_of(request).client.with_token(_token_of(request))


def name_of(request: Request) -> str:
    """Who asks, for the record."""
    return f"api:{request.client.host}" if request.client is not None else "api"


def _token_of(request: Request) -> str | None:
    own = request.headers.get("x-consul-token", "").strip()
    authorization = request.headers.get("authorization", "")
    bearer = ""
    if authorization[: len(_BEARER)].lower() == _BEARER:
        bearer = authorization[len(_BEARER) :].strip()
    elif authorization:
        raise InvalidInput.at("Authorization", "has to be 'Bearer <token>'")
    if own and bearer and own != bearer:
        raise InvalidInput.at("Authorization", "names another token than X-Consul-Token", "send one of them")
    return own or bearer or None
