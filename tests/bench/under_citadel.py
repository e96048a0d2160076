"""A graph under citadel: an orchestrator and a node agent, processes of their own, on a Consul that keeps its data."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cycle import Cycle, started, stopped
from figures import NotMeasured
from real_world import MARK, World
from timed_service import TimedServices

from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.model import Check, CheckKind, ProcessBackend, ServiceSpec
from citadel_consul.core.operation import Kind, Operation, OperationState, Options
from citadel_consul.store.keys import Keys
from citadel_consul.store.requests import submit, wait_for_end

WITHIN_SECONDS = 240.0
REST_SECONDS = 1.0
"""Between two cycles, so that the writes after the end of one are not in the next."""


@contextmanager
def under_citadel(services: TimedServices, consul: str) -> Iterator[Callable[[], Cycle]]:
    """Bring up the roles; what is yielded starts and stops the whole stack once."""
    (folder := services.folder / "citadel").mkdir()
    with World(consul, folder, f"bench-{services.graph.name}", dict(os.environ)) as world:
        world.apply([_spec(services, name) for name in services.graph.services], services.graph.edges)
        world.orchestrator()
        world.agent()
        world.until_led()
        world.until(lambda: world.snapshot().agents, what="an agent")
        yield lambda: _cycle(world, services)


def _cycle(world: World, services: TimedServices) -> Cycle:
    time.sleep(REST_SECONDS)
    services.clear()
    requested, told = _operate(world, Kind.STARTUP)
    start = started(services.graph, services.lives(), requested, told)
    time.sleep(REST_SECONDS)
    requested, told = _operate(world, Kind.SHUTDOWN)
    return Cycle(start, stopped(services.graph, services.lives(), requested, told))


def _operate(world: World, kind: Kind) -> tuple[float, float]:
    """When an operation was about to be requested, and when the leader said that it is done."""
    keys, moments = Keys(world.stack), list[float]()

    async def request_and_wait(client: ConsulClient) -> Operation:
        moments.append(time.time())
        operation = await submit(client, keys, kind, ("all",), Options(), requested_by="bench")
        return await wait_for_end(client, keys, operation.id, timeout_seconds=WITHIN_SECONDS)

    operation = world.ask(request_and_wait)
    if operation.state is not OperationState.SUCCEEDED or operation.ended_at is None:
        raise NotMeasured(f"the {kind} {operation.state}: {operation.detail}\n{world.logs()}")
    return moments[-1], operation.ended_at


def _spec(services: TimedServices, name: str) -> ServiceSpec:
    address = f"127.0.0.1:{services.ports[name]}"
    return ServiceSpec(
        name=name,
        type="bench",
        nodes=("n1",),
        backend=ProcessBackend(command=services.command(name), env=MARK),
        endpoint=f"tcp://{address}",
        checks=(Check("tcp", CheckKind.TCP, address),),
        start_timeout_seconds=WITHIN_SECONDS,
    )
