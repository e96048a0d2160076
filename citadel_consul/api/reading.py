"""Reading what an answer is made of, with the token of whoever asks. Free of anything web: the CLI reads so, too."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace

from citadel_consul.consul.catalog import CRITICAL, WARNING, CheckState
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.answers.health import CheckFinding
from citadel_consul.core.answers.services import Locate
from citadel_consul.core.answers.status import Leadership
from citadel_consul.core.model import ServiceSpec
from citadel_consul.core.operation import Operation
from citadel_consul.core.snapshot import Defaults, Snapshot
from citadel_consul.errors import InvalidInput
from citadel_consul.orchestrator.handover import SERVICE_NAME
from citadel_consul.rendering.expansion import expand, is_templated
from citadel_consul.rendering.scope import NodeContext
from citadel_consul.store.keys import Keys
from citadel_consul.store.reading import checks_of_stack, read_state, read_steps
from citadel_consul.store.state import StackState, instance_of


async def read_stack(client: ConsulClient, stack: str, defaults: Defaults) -> StackState:
    """All of a stack. Raises PermissionDenied where the token may not read.

    Consul leaves out of a listing what a token may not see, without a word: a stack that looks empty is asked about
    by the name of a key, to which Consul does say no.
    """
    state = await read_state(client, stack, defaults)
    if not state.specs.values and not state.leader.values:
        await client.kv_get(state.keys.leader)
    return state


def leadership_of(state: StackState) -> Leadership | None:
    """Who leads, if anybody does."""
    leader, epoch = state.current_leader(), state.epoch()
    if leader is None or epoch is None:
        return None
    return Leadership(leader.id, leader.node, leader.api, leader.since, epoch)


async def read_standbys(client: ConsulClient, stack: str, leadership: Leadership | None) -> tuple[str, ...]:
    """The orchestrators of a stack that Consul shows as alive and that do not lead."""
    prefix = f"{SERVICE_NAME}.{stack}."
    found = await client.health_service(SERVICE_NAME, tag=stack, passing=True)
    ids = {entry.service.id.removeprefix(prefix) for entry in found.value if entry.service.id.startswith(prefix)}
    return tuple(sorted(ids - ({leadership.id} if leadership is not None else set())))


def locator(state: StackState) -> Locate:
    """Fills in the templated endpoints of a spec for the first of its nodes whose address is known.

    What cannot be filled in is left out: an address that is a template helps nobody.
    """
    addresses = {record.node: record.address for record in state.agents.values.values()}

    def locate(spec: ServiceSpec) -> ServiceSpec:
        node = next((node for node in spec.nodes if node in addresses), None)
        if node is not None:
            with contextlib.suppress(InvalidInput):  # the agent says what is wrong when it is to start it
                return expand(spec, NodeContext(node, addresses[node], state.keys.stack))
        return replace(
            spec,
            endpoint=_literal(spec.endpoint),
            health_endpoint=_literal(spec.health_endpoint),
            checks=tuple(check for check in spec.checks if not is_templated(check.target)),
        )

    return locate


async def with_steps(
    client: ConsulClient, keys: Keys, operations: Iterable[Operation], wanted: Callable[[Operation], bool]
) -> tuple[Operation, ...]:
    """``operations``, those that are ``wanted`` with their steps."""
    found = []
    for operation in operations:
        if wanted(operation) and not operation.steps:
            steps = await read_steps(client, keys, operation.id)
            operation = replace(operation, steps=steps[: operation.step_count])
        found.append(operation)
    return tuple(found)


async def read_findings(client: ConsulClient, snapshot: Snapshot) -> tuple[CheckFinding, ...]:
    """The checks that are not passing of the stack's services, and of the Consul nodes that they are registered on."""
    checks: list[CheckState] = []
    for status in (CRITICAL, WARNING):
        checks += (await client.health_state(status, filter=checks_of_stack(snapshot.stack))).value
    own = {c for c in checks if instance_of(snapshot.stack, c.service_id) is not None}
    nodes = {c.node for c in own} | set(snapshot.agents)
    relevant = (c for c in checks if c in own or (not c.service_id and c.node in nodes))
    return tuple(CheckFinding(c.node, c.service_name, c.name, c.status, c.output) for c in relevant)


def _literal(text: str | None) -> str | None:
    return None if text is None or is_templated(text) else text
