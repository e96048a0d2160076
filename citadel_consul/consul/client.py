"""The client: every method that citadel has on Consul, typed, over one pool of connections.

    async with ConsulClient(parse_address("127.0.0.1:8500")) as consul:
        entry = await consul.kv_get("citadel/demo/leader")

The methods live with their nouns: ``kv``, ``transaction``, ``session``, ``agent``, ``catalog``, ``identity``. All raise
the errors of :mod:`citadel_consul.errors` and no others, ``ValueError`` for a mistake of the caller apart.
"""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import Self

from citadel_consul.consul.address import ConsulAddress
from citadel_consul.consul.agent import Agent
from citadel_consul.consul.catalog import Catalog
from citadel_consul.consul.identity import Identity
from citadel_consul.consul.kv import KV
from citadel_consul.consul.session import Sessions
from citadel_consul.consul.transport import HttpxTransport


class ConsulClient(KV, Sessions, Agent, Catalog, Identity):
    """Consul's API with one token. Give it a ``transport`` to share a pool, which then stays the giver's to close."""

    def __init__(self, address: ConsulAddress, *, transport: HttpxTransport | None = None) -> None:
        super().__init__(transport or HttpxTransport(address), address.token)
        self.address = address
        self._owns_pool = transport is None

    def with_token(self, token: str | None) -> ConsulClient:
        """The same Consul over the same pool as somebody else: what the HTTP API acts with for its callers.

        ``None`` is the agent's default token. Closing the result leaves the pool open; closing this client closes it
        for both. Raises ``InvalidInput`` for what cannot be a token.
        """
        return ConsulClient(replace(self.address, token=token), transport=self._http)

    def drop_connections(self) -> None:
        """Trust no connection that is open now, because one was found to be dead without a word.

        Blocking queries that are under way fail with ``ConsulUnavailable`` at once, instead of waiting for an answer
        that cannot come until the end of their time.
        """
        self._http.drop_connections()

    async def aclose(self) -> None:
        """Close the connections, if they are this client's own."""
        if self._owns_pool:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
