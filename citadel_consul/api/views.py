"""The endpoints that tell how the stack is."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response

from citadel_consul.api.documents import HEALTH_DOCUMENT
from citadel_consul.api.measuring import read_measured
from citadel_consul.api.reading import leadership_of, locator, read_findings, read_standbys, with_steps
from citadel_consul.api.replies import PREFIX, reply
from citadel_consul.api.site import caller_of, site_of
from citadel_consul.core.answers.dependencies import (
    DependencyAnswer,
    DependencyDebugAnswer,
    dependency_answer,
    dependency_debug_answer,
)
from citadel_consul.core.answers.health import HealthDebugAnswer, health_answer, health_debug_answer
from citadel_consul.core.answers.metrics import MetricsAnswer, is_whole_startup, metrics_answer
from citadel_consul.core.answers.services import ServicesAnswer, services_answer
from citadel_consul.core.answers.status import StatusAnswer, status_answer

router = APIRouter(prefix=PREFIX, tags=["State"])


@router.get("/status", response_model=StatusAnswer)
async def status(request: Request) -> Response:
    """The orchestration and the stack at a glance."""
    site, client = site_of(request), caller_of(request)
    state = await site.read(client)
    leadership = leadership_of(state)
    standbys = await read_standbys(client, site.keys.stack, leadership)
    snapshot = state.snapshot()
    started_at = site.orchestrator.started_at
    answer = status_answer(snapshot, time.time(), leadership=leadership, standbys=standbys, started_at=started_at)
    return reply(answer)


@router.get("/services", response_model=ServicesAnswer)
async def services(request: Request) -> Response:
    """What is managed, where it is reached, and its place in the order."""
    state = await site_of(request).read(caller_of(request))
    return reply(services_answer(state.snapshot(), time.time(), locate=locator(state)))


@router.get("/health", response_model=HEALTH_DOCUMENT)
async def health(request: Request) -> Response:
    """How each service is. The node agents are asked what they measure, and given a second."""
    state = await site_of(request).read(caller_of(request))
    measured = await read_measured(state)
    return reply(health_answer(state.snapshot(), time.time(), measured).document())


@router.get("/dependencies", response_model=DependencyAnswer)
async def dependencies(request: Request) -> Response:
    """The dependency graph in force."""
    state = await site_of(request).read(caller_of(request))
    return reply(dependency_answer(state.snapshot()))


@router.get("/metrics", response_model=MetricsAnswer)
async def metrics(request: Request) -> Response:
    """Figures over time. For Prometheus there is `/metrics`."""
    site, client = site_of(request), caller_of(request)
    state = await site.read(client)
    snapshot = state.snapshot()
    operations = await with_steps(client, site.keys, snapshot.operations, is_whole_startup)
    measured = await read_measured(state)
    return reply(metrics_answer(snapshot, time.time(), operations, measured))


@router.get("/debug/dependencies", response_model=DependencyDebugAnswer)
async def debug_dependencies(request: Request) -> Response:
    """What each service waits for, what hangs on it, and which edges are not in force."""
    state = await site_of(request).read(caller_of(request))
    led = leadership_of(state) is not None
    return reply(dependency_debug_answer(state.snapshot(), time.time(), led=led))


@router.get("/debug/health", response_model=HealthDebugAnswer)
async def debug_health(request: Request) -> Response:
    """All that the health of each instance is concluded from."""
    site, client = site_of(request), caller_of(request)
    state = await site.read(client)
    snapshot = state.snapshot()
    findings = await read_findings(client, snapshot)
    led = leadership_of(state) is not None
    return reply(health_debug_answer(snapshot, time.time(), checks=findings, led=led))
