"""Housekeeping: the leader keeps the KV store of its stack small and cheap to watch.

Events and ended operations are trimmed to a bounded count, oldest first (ids sort by time). What was taken out of the
stack is forgotten once nothing of it runs and nobody has it in hand: the orders to it, and what was counted of it.

And where a watched place is empty, a folder is laid: a blocking query on what does not exist has no index of its own,
so Consul answers it at every write nearby, and on a busy stack more than half of the leader's requests were such empty
answers (868 of about 3,200 for each of two empty places in a chain of 20 starts). Caches pass over keys that end in a
slash.

All of it is done now and then, and under the fence like every write.
"""

from __future__ import annotations

import asyncio
import logging

from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.incident import STACK
from citadel_consul.core.model import Instance
from citadel_consul.errors import Conflict, ConsulUnavailable
from citadel_consul.orchestrator.writer import FencedWriter
from citadel_consul.store import documents
from citadel_consul.store.documents import HandoverRequest
from citadel_consul.store.state import StackState

log = logging.getLogger(__name__)

EVENTS_KEPT = 1000
OPERATIONS_KEPT = 100
EVERY_SECONDS = 30.0


class Housekeeping:
    """Trims what a stack remembers, and lays folders where nothing is."""

    def __init__(self, client: ConsulClient, state: StackState, writer: FencedWriter) -> None:
        self._client = client
        self._state = state
        self._writer = writer

    async def run(self) -> None:
        """Do it at once and every now and then, until cancelled."""
        while True:
            try:
                await self.lay_folders()
                await self.trim()
                await self.forget()
            except (ConsulUnavailable, Conflict) as error:
                log.info("the house could not be kept: %s", error)
            await asyncio.sleep(EVERY_SECONDS)

    async def lay_folders(self) -> None:
        """Write a folder, or a value that means nothing, where watches would find nothing at all."""
        keys = self._state.keys
        nobody = documents.HANDOVER.encode(HandoverRequest(epoch=0))
        wanted = ((keys.holds, b""), (keys.incidents, b""), (keys.handover, nobody))
        missing = [(key, value) for key, value in wanted if await self._client.kv_get(key) is None]
        await self._writer.put_keys(missing)

    async def trim(self) -> None:
        """Delete the oldest events and ended operations beyond what is kept."""
        keys = self._state.keys
        events = sorted(await self._client.kv_keys(keys.events))
        doomed = events[: max(0, len(events) - EVENTS_KEPT)]
        ended = [op.id for op in self._state.all_operations() if op.ended]
        for operation_id in ended[: max(0, len(ended) - OPERATIONS_KEPT)]:
            doomed += sorted(await self._client.kv_keys(keys.step_chunks(operation_id)))
            doomed += [keys.cancel(operation_id), keys.operation(operation_id)]
        if doomed:
            await self._writer.delete_keys(doomed)

    async def forget(self) -> None:
        """Forget the services that the stack does not have any more, and the instances that moved to another node."""
        state = self._state
        gone: dict[str, set[str]] = {}
        for key, document in state.desired.values.items():
            node = key.removeprefix(state.keys.desired)
            services = {service for service in document.instances if self._is_gone(Instance(service, node))}
            if services:
                gone[node] = services
        await self._writer.forget_instances(gone)
        named = {service for document in state.desired.values.values() for service in document.instances}
        for prefix, cache in ((state.keys.stats, state.stats), (state.keys.incidents, state.incidents)):
            counted = [key.removeprefix(prefix) for key in cache.values]
            await self._writer.forget_services(
                prefix, [service for service in counted if service not in named and not self._is_known(service)]
            )

    def _is_known(self, service: str) -> bool:
        """Whether the stack has it, or has a spec of it that cannot be read."""
        return service == STACK or self._state.specs.index_of(self._state.keys.spec(service)) != 0

    def _is_gone(self, instance: Instance) -> bool:
        """Whether the stack has no such instance, its agent has seen the last order to it, and nothing of it runs."""
        state, (service, node) = self._state, instance
        spec = state.specs.values.get(state.keys.spec(service))
        if node in spec.nodes if spec is not None else self._is_known(service):
            return False
        desired = state.desired.values[state.keys.desired_of(node)].instances[service]
        report = state.observed.values.get(state.keys.observed_of(node))
        observed = report.instances.get(service) if report is not None else None
        if desired.run or (observed is not None and (observed.alive or observed.generation < desired.generation)):
            return False
        return not any(op.names(service) or service in op.scope for op in state.all_operations() if not op.ended)
