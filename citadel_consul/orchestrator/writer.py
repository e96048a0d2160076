"""From the actions of a decision to documents and transactions, written through the fence (see ``fence``).

A decision may need more than one transaction (64 operations each). The order is such that any prefix leaves a state
from which a fresh look goes on: incidents first, so that no attempt is made that was not counted, then what is wanted,
then the steps that point to it, then the heads of operations, and what is counted of it all last.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from citadel_consul.consul.kv import KVEntry
from citadel_consul.consul.transaction import MAX_OPERATIONS, TxnOp, TxnResult, cas, delete, set_key
from citadel_consul.core.actions import (
    Action,
    RecordEvent,
    SetDesired,
    WakeAt,
    WriteIncident,
    WriteOperation,
    WriteStats,
    WriteStep,
)
from citadel_consul.core.incident import Incident
from citadel_consul.core.operation import Operation, Step
from citadel_consul.core.stats import ServiceStats
from citadel_consul.orchestrator.fence import Fence
from citadel_consul.store import documents
from citadel_consul.store.documents import Event, NodeDesired, StepChunk
from citadel_consul.store.identifiers import new_id
from citadel_consul.store.state import StackState

STEPS_PER_CHUNK = 64
BYTES_PER_TRANSACTION = 256 * 1024
"""Half of what Consul takes, since base64 and the frame of a transaction make values longer."""


@dataclass(slots=True)
class Write:
    """One key to be written, and what its writing means for the state known here."""

    operation: TxnOp
    prefix: str | None = None
    value: object = None
    steps_of: str | None = None


@dataclass(slots=True)
class Changes:
    """The actions of one decision, sorted by the document that they touch."""

    incidents: dict[str, Incident] = field(default_factory=dict)
    desired: dict[str, NodeDesired] = field(default_factory=dict)
    steps: dict[str, dict[int, Step]] = field(default_factory=dict)
    heads: dict[str, Operation] = field(default_factory=dict)
    events: list[RecordEvent] = field(default_factory=list)
    stats: dict[str, ServiceStats] = field(default_factory=dict)


class FencedWriter:
    """Writes the actions of a leader under its session. Each leadership has a writer of its own."""

    def __init__(self, fence: Fence, state: StackState, *, epoch: int, identity: str) -> None:
        self._fence = fence
        self._state = state
        self._identity = identity
        self.epoch = epoch

    async def commit(self, actions: Iterable[Action], now: float) -> int:
        """Write ``actions`` and take them into the state; returns the number of transactions.

        Raises:
            LeadershipLost: another session holds the lock; nothing of this transaction was written.
            Conflict: somebody else changed a document meanwhile; read it again and decide anew.
            ConsulUnavailable: no answer; the transaction may or may not have been carried out, so read again.
        """
        changes = self._sort(actions)
        count = 0
        for batch in _batches(self._writes(changes, now)):
            await self._transact(batch)
            count += 1
        self._take_steps(changes)
        return count

    async def delete_keys(self, keys: Iterable[str]) -> None:
        """Delete keys of the history, under the fence like every write."""
        for batch in _batches(Write(delete(key)) for key in keys):
            await self._transact(batch)

    async def forget_services(self, prefix: str, services: Iterable[str]) -> None:
        """Delete what is kept of ``services`` below ``prefix`` (statistics, incidents), here as in the store."""
        keys = [f"{prefix}{service}" for service in services]
        await self.delete_keys(keys)
        for key in keys:
            self._state.removed(prefix, key)

    async def forget_instances(self, gone: Mapping[str, Container[str]]) -> None:
        """Say nothing more of services that are not on a node any more; ``gone`` are their names, by node.

        Raises Conflict if the orders of a node were changed by somebody else meanwhile.
        """
        keys, writes = self._state.keys, []
        for node, services in gone.items():
            key = keys.desired_of(node)
            known = self._state.desired.values[key].instances
            kept = {service: desired for service, desired in known.items() if service not in services}
            document = NodeDesired(epoch=self.epoch, instances=kept)
            operation = cas(key, documents.DESIRED.encode(document), self._state.desired.index_of(key))
            writes.append(Write(operation, keys.desired, document))
        for batch in _batches(writes):
            await self._transact(batch)

    async def put_keys(self, values: Iterable[tuple[str, bytes]]) -> None:
        """Write keys on which no decision rests, under the fence like every write."""
        for batch in _batches(Write(set_key(key, value)) for key, value in values):
            await self._transact(batch)

    async def _transact(self, batch: list[Write]) -> None:
        self._take(batch, await self._fence.write([write.operation for write in batch]))

    # --- from actions to documents ------------------------------------------------------------------------------

    def _sort(self, actions: Iterable[Action]) -> Changes:
        changes = Changes()
        for action in actions:
            if isinstance(action, SetDesired):
                self._set_desired(changes, action)
            elif isinstance(action, WriteStep):
                changes.steps.setdefault(action.operation, {})[action.position] = action.step
            elif isinstance(action, WriteOperation):
                changes.heads[action.operation.id] = replace(action.operation, epoch=self.epoch)
            elif isinstance(action, WriteIncident):
                changes.incidents[action.incident.service] = action.incident
            elif isinstance(action, WriteStats):
                changes.stats[action.stats.service] = action.stats
            elif isinstance(action, RecordEvent):
                changes.events.append(action)
            else:
                _ignore(action)
        return changes

    def _set_desired(self, changes: Changes, action: SetDesired) -> None:
        node = action.instance.node
        known = self._state.desired.values.get(self._state.keys.desired_of(node))
        before = changes.desired.get(node) or known or NodeDesired(epoch=self.epoch)
        instances = {**before.instances, action.instance.service: action.desired}
        changes.desired[node] = NodeDesired(epoch=self.epoch, instances=instances)

    # --- from documents to operations of a transaction ----------------------------------------------------------

    def _writes(self, changes: Changes, now: float) -> Iterator[Write]:
        keys = self._state.keys
        for incident in changes.incidents.values():
            key = keys.incident(incident.service)
            index = self._state.incidents.index_of(key)
            yield Write(cas(key, documents.INCIDENT.encode(incident), index), keys.incidents, incident)
        for node, document in changes.desired.items():
            key = keys.desired_of(node)
            index = self._state.desired.index_of(key)
            yield Write(cas(key, documents.DESIRED.encode(document), index), keys.desired, document)
        for operation_id, steps in changes.steps.items():
            yield from self._step_writes(operation_id, steps)
        for event in changes.events:
            event_id = new_id(now)
            encoded = documents.EVENT.encode(self._event(event, event_id, now))
            yield Write(set_key(keys.event(event_id), encoded))
        for operation in changes.heads.values():
            key = keys.operation(operation.id)
            index = self._state.operations.index_of(key)
            head = replace(operation, steps=())
            yield Write(cas(key, documents.encode_operation(operation), index), keys.operations, head)
        for stats in changes.stats.values():
            key = keys.stats_of(stats.service)
            yield Write(cas(key, documents.STATS.encode(stats), self._state.stats.index_of(key)), keys.stats, stats)

    def _step_writes(self, operation_id: str, changed: dict[int, Step]) -> Iterator[Write]:
        steps = self._merged(operation_id, changed)
        for number in sorted({position // STEPS_PER_CHUNK for position in changed}):
            first = number * STEPS_PER_CHUNK
            chunk = StepChunk(steps[first : first + STEPS_PER_CHUNK])
            key = self._state.keys.step_chunk(operation_id, number)
            yield Write(set_key(key, documents.STEPS.encode(chunk)))

    def _merged(self, operation_id: str, changed: dict[int, Step]) -> tuple[Step, ...]:
        known = dict(enumerate(self._state.steps.get(operation_id, ())))
        merged = {**known, **changed}
        return tuple(merged[position] for position in range(len(merged)))

    def _event(self, action: RecordEvent, event_id: str, now: float) -> Event:
        return Event(
            id=event_id,
            at=now,
            kind=action.kind,
            message=action.message,
            by=self._identity,
            epoch=self.epoch,
            service=action.service,
            node=action.node,
            operation=action.operation,
        )

    # --- what was written is known ------------------------------------------------------------------------------

    def _take(self, batch: list[Write], result: TxnResult) -> None:
        for write in batch:
            if write.prefix is None:
                continue
            index = result.entry(write.operation.key).modify_index
            entry = KVEntry(
                key=write.operation.key,
                value=write.operation.value or b"",
                modify_index=index,
                create_index=0,
                lock_index=0,
                flags=0,
                session=None,
            )
            self._state.wrote(write.prefix, entry, write.value)

    def _take_steps(self, changes: Changes) -> None:
        for operation_id, changed in changes.steps.items():
            self._state.steps[operation_id] = self._merged(operation_id, changed)


def _batches(writes: Iterable[Write]) -> Iterator[list[Write]]:
    """As few transactions as Consul's limits allow; one operation of each is the fence."""
    batch: list[Write] = []
    size = 0
    for write in writes:
        length = len(write.operation.value or b"")
        if batch and (len(batch) >= MAX_OPERATIONS - 1 or size + length > BYTES_PER_TRANSACTION):
            yield batch
            batch, size = [], 0
        batch.append(write)
        size += length
    if batch:
        yield batch


def _ignore(action: WakeAt) -> None:
    """A wish to be woken is no write."""
    del action
