"""Whether a stack is at rest after faults, and what the faults have broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from checker import Life, ended_unasked, lived_twice, read_ledger, stops_in_place, unfinished, violations
from kv_audit import Audit
from real_world import World, runs
from roles import Crew

from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Edge, Instance
from citadel_consul.core.operation import Kind, Operation, OperationState
from citadel_consul.core.snapshot import Snapshot
from citadel_consul.store.keys import Keys
from citadel_consul.store.reading import read_operation

Places = Mapping[str, Sequence[str]]


@dataclass
class Verdict:
    """What was broken, and how the operations ended."""

    broken: list[str] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)

    def outcome(self, asked: Iterable[str]) -> str:
        wanted = set(asked)
        return ", ".join(f"{op.state} {op.detail}".strip() for op in self.operations if op.id in wanted)

    def ends(self) -> Counter[str]:
        return Counter(str(operation.state) for operation in self.operations)


def every_instance(places: Places) -> list[Instance]:
    return [Instance(service, node) for service, nodes in places.items() for node in nodes]


def lives_of(world: World, instance: Instance) -> list[Life]:
    return read_ledger(world.folder / f"{instance}.lives")


def running(world: World, instance: Instance) -> list[int]:
    """The pids of the processes of an instance that run now."""
    ledger = world.folder / f"{instance}.lives"
    return [life.pid for life in read_ledger(ledger) if runs(life.pid, ledger)]


def unrest(crew: Crew, places: Places) -> str | None:
    """What is not yet as it should be; None if the stack is at rest."""
    world = crew.world
    snapshot = world.snapshot()
    if world.leader() is None:
        return "nobody leads"
    missing = {role.node for role in crew.agents} - snapshot.agents
    if missing:
        return f"the node agents of {', '.join(sorted(missing))} do not hold their locks"
    for operation in snapshot.operations:
        if not operation.ended:
            return f"{operation.kind} {operation.id} is {operation.state}"
    passing = _passing(world, places)
    for instance in every_instance(places):
        reason = _restless(world, snapshot, instance, passing)
        if reason is not None:
            return f"{instance}: {reason}"
    return None


def _restless(world: World, snapshot: Snapshot, instance: Instance, passing: frozenset[str]) -> str | None:
    desired, observed = snapshot.desired.get(instance), snapshot.observed.get(instance)
    pids = running(world, instance)
    wanted = desired is not None and desired.run
    if len(pids) != wanted:
        return f"processes {pids} run, and it is {'' if wanted else 'not '}wanted"
    if desired is None:
        return None
    if desired.generation > (0 if observed is None else observed.generation):  # what was never ordered has none
        return f"ordered {desired}, observed {observed}"
    if wanted and (observed is None or observed.phase is not Phase.READY or [observed.pid] != pids):
        return f"processes {pids} run, and observed is {observed}"
    listed = f"{world.stack}.{instance.service}.{instance.node}" in passing
    if listed != wanted:
        return f"it is {'' if wanted else 'not '}wanted, and {'' if listed else 'not '}passing in the catalog"
    return None


def _passing(world: World, places: Places) -> frozenset[str]:
    async def read(client: ConsulClient) -> frozenset[str]:
        found = [await client.health_service(service, passing=True) for service in places]
        return frozenset(entry.service.id for answer in found for entry in answer.value)

    return world.ask(read)


def judge(world: World, places: Places, edges: Sequence[Edge], audit: Audit, requested: Sequence[str]) -> Verdict:
    """Hold everything that is written down against the invariants."""
    operations = operations_of(world)
    chronicle = world.chronicle()
    counts = {service: len(nodes) for service, nodes in places.items()}
    broken = violations(chronicle, edges, instances=counts, in_place=stops_in_place(operations))
    broken += audit.violations()
    broken += unfinished(operations, requested)
    broken += [f"{op.kind} {op.id} failed: {op.detail}" for op in operations if not _had_reason(op)]
    asked = set(requested)
    broken += [
        f"I7: nothing failed, and {op.id} ({op.requested_by}) recovers {', '.join(op.targets)}"
        for op in operations
        if op.kind is Kind.RECOVER and op.id not in asked
    ]
    for instance in every_instance(places):
        lives = lives_of(world, instance)
        broken += lived_twice(str(instance), lives)
        broken += ended_unasked(instance, lives, running(world, instance), chronicle)
    return Verdict(broken, operations)


def _had_reason(operation: Operation) -> bool:
    """Whether an operation did not fail, or did because a service was to start without what it needs."""
    return operation.state is not OperationState.FAILED or "which is not healthy" in operation.detail


def operations_of(world: World) -> list[Operation]:
    """Every operation that lies in the store, with its steps."""
    keys = Keys(world.stack)

    async def read(client: ConsulClient) -> list[Operation]:
        ids = [key.removeprefix(keys.operations) for key in await client.kv_keys(keys.operations)]
        found = [await read_operation(client, keys, operation_id) for operation_id in ids if "/" not in operation_id]
        return [operation for operation in found if operation is not None]

    return world.ask(read)
