"""For machines that look after machines: liveness, readiness, and Prometheus."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from citadel_consul.api.exposition import Reading, expose
from citadel_consul.api.reading import leadership_of
from citadel_consul.api.replies import reply
from citadel_consul.api.site import caller_of, site_of
from citadel_consul.errors import CitadelError, ConsulUnavailable

PROBE_SECONDS = 2.0
SCRAPE_SECONDS = 5.0
"""Prometheus gives up after 10 s by default: better half of the metrics in time than none."""

router = APIRouter(tags=["Probes"])
prometheus = APIRouter(tags=["Probes"])


@router.get("/livez")
async def livez() -> Response:
    """Whether this process answers. Consul may be absent: that is no reason to restart an orchestrator."""
    return reply({"status": "alive"})


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Whether requests can be served: Consul answers and has a leader. Needs no token."""
    site = site_of(request)
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            leader = await site.client.status_leader()
    except TimeoutError:
        raise ConsulUnavailable(f"Consul gave no answer within {PROBE_SECONDS:g} s") from None
    if leader is None:
        raise ConsulUnavailable("Consul has no leader")
    return reply({"status": "ready", "consul_leader": leader, "leading": site.orchestrator.leading})


@prometheus.get("/metrics")
async def prometheus_metrics(request: Request) -> Response:
    """Metrics in Prometheus' text format."""
    site, client = site_of(request), caller_of(request)
    began, now = time.monotonic(), time.time()
    snapshot, led = None, False
    try:
        async with asyncio.timeout(SCRAPE_SECONDS):
            state = await site.read(client)
        snapshot, led = state.snapshot(), leadership_of(state) is not None
    except (CitadelError, TimeoutError):
        pass  # the scrape says so itself
    reading = Reading(snapshot, led, time.monotonic() - began, now)
    return Response(expose(site.meter, site.orchestrator, reading), media_type=CONTENT_TYPE_LATEST)
