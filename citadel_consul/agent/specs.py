"""The specs as this node knows them: watched, with their templates filled in, and read anew before a start.

Orders and specs are watched side by side, and neither waits for the other: an order can come before the spec that it
rests on, by milliseconds, or by seconds after an outage. So a start looks the spec up (1 ms); what the watch last told
has to do only where Consul does not answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.consul.patience import patiently
from citadel_consul.consul.watch import Fresh, watch
from citadel_consul.core.model import ServiceSpec
from citadel_consul.errors import CitadelError, InvalidInput
from citadel_consul.store import documents
from citadel_consul.store.cache import PrefixCache
from citadel_consul.store.keys import Keys

log = logging.getLogger(__name__)

WATCH_SECONDS = 300.0
"""A watch that nothing wakes is answered with all specs of the stack when its time is up, to each node agent."""
LOOK_UP_SECONDS = 1.0
"""How long a start may be held up by a Consul that does not answer."""

Expand = Callable[[ServiceSpec], ServiceSpec]


class Specs:
    """Every spec of the stack; ``expand`` fills in the templates for this node."""

    def __init__(self, client: ConsulClient, keys: Keys, expand: Expand) -> None:
        self._client = client
        self._keys = keys
        self._expand = expand
        self._cache: PrefixCache[ServiceSpec] = PrefixCache(lambda entry: documents.SPEC.decode(entry.value))
        self._expanded: dict[str, tuple[ServiceSpec, ServiceSpec]] = {}
        self._nodes: frozenset[str] = frozenset()

    @property
    def node_count(self) -> int:
        """How many nodes the stack has."""
        return len(self._nodes)

    def _merge(self, index: int, entries: tuple[KVEntry, ...], *, restarted: bool = False) -> None:
        if self._cache.merge(index, entries, restarted=restarted):
            self._nodes = frozenset(node for spec in self._cache.values.values() for node in spec.nodes)

    async def read(self) -> None:
        """Read them all; waits for Consul."""
        listing = await patiently(lambda: self._client.kv_list(self._keys.specs))
        self._merge(listing.index, listing.value)

    async def run(self) -> None:
        """Watch until cancelled."""
        specs, client = self._keys.specs, self._client
        async for news in watch(lambda index, wait: client.kv_list(specs, index, wait), wait_seconds=WATCH_SECONDS):
            if isinstance(news, Fresh):
                entries: tuple[KVEntry, ...] = news.value
                self._merge(news.index, entries, restarted=news.restarted)
                left = {s: known for s, known in self._expanded.items() if self._cache.index_of(self._keys.spec(s))}
                self._expanded = left

    def places(self, service: str, node: str) -> bool:
        """Whether the service belongs to ``node``, as last heard; what cannot be read may."""
        key = self._keys.spec(service)
        spec = self._cache.values.get(key)
        return node in spec.nodes if spec is not None else self._cache.index_of(key) != 0

    def known(self, service: str) -> ServiceSpec | None:
        """The spec with its templates filled in, as last heard; None if there is none that can be used."""
        spec = self._cache.values.get(self._keys.spec(service))
        if spec is None:
            return None
        known = self._expanded.get(service)
        if known is None or known[0] is not spec:
            try:
                known = (spec, self._expand(spec))
            except InvalidInput as error:
                log.warning("the spec of %s cannot be used on this node: %s", service, error)
                return None
            self._expanded[service] = known
        return known[1]

    async def fresh(self, service: str) -> ServiceSpec | None:
        """The same, as it stands in Consul now if that can be learnt in time."""
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                entry = await self._client.kv_get(self._keys.spec(service))
        except (TimeoutError, CitadelError) as error:
            log.warning("the spec of %s could not be looked up, what is known has to do: %s", service, error)
        else:
            if entry is not None:
                self._cache.refresh(entry)
        return self.known(service)
