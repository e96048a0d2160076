"""Phase 1: everything is registered, the graph is sound, the health endpoints answer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from citadel_consul.agent.readiness import connect
from citadel_consul.cli.drilling import processes
from citadel_consul.cli.drilling.site import Site, expanded, lasting
from citadel_consul.cli.drilling.verdict import Line, line, unchecked
from citadel_consul.config.addresses import is_loopback
from citadel_consul.consul.catalog import CRITICAL, ServiceHealth
from citadel_consul.core.graph import Graph
from citadel_consul.core.model import CheckKind, Edge, Instance, ServiceSpec
from citadel_consul.errors import InvalidInput
from citadel_consul.store.state import StackState

DEGRADED = 429
"""What Consul takes for a warning; it is an answer of a health endpoint that works."""
PROBE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Discovered:
    """What is registered, and what was found when it was asked.

    ``registered`` is the worst status of each instance in the catalog. ``edges`` are all that the KV store holds.
    ``probes`` says of each endpoint what is wrong with it, None for nothing; ``elsewhere`` counts those that only their
    own machine can reach, for which ``registered`` has to do.
    """

    expected: tuple[Instance, ...]
    registered: Mapping[Instance, str]
    graph: Graph
    edges: tuple[Edge, ...] = ()
    graph_problems: tuple[str, ...] = ()
    probes: Mapping[str, str | None] = field(default_factory=dict)
    elsewhere: int = 0


async def discover(site: Site) -> Discovered:
    """Gather the evidence."""
    state = await site.read()
    snapshot = state.snapshot()
    catalog = await site.catalog(tuple(snapshot.specs))
    expected = lasting(snapshot)
    faults = [
        f"{fault.service} → {fault.dependency} is not in force: {fault.message}" for fault in snapshot.graph_faults
    ]
    faults += [f"{fault.key} {fault.message}" for fault in snapshot.faults]
    here = {i for i in expected if processes.likely(site.stack, i, snapshot.observed.get(i)) is not None}
    probes, elsewhere = await _probe_all(state, expected, here)
    return Discovered(
        expected=expected,
        registered={instance: entry.status for instance, entry in catalog.items()},
        graph=snapshot.graph,
        edges=tuple(state.edges.values.values()),
        graph_problems=tuple(faults),
        probes=probes,
        elsewhere=elsewhere,
    )


def judge_discovery(seen: Discovered) -> tuple[Line, ...]:
    """The lines of phase 1."""
    return (
        line("All services registered successfully", _unregistered(seen), _registered_figure(seen)),
        line("Dependency graph resolved correctly", _graph_problems(seen), _graph_figure(seen)),
        _endpoints(seen),
    )


def _unregistered(seen: Discovered) -> Iterator[str]:
    for instance in seen.expected:
        status = seen.registered.get(instance)
        if status is None:
            yield f"{instance} is not registered"
        elif status == CRITICAL:
            yield f"{instance} is registered, and DNS leaves it out: its checks are critical"


def _registered_figure(seen: Discovered) -> str:
    good = sum(seen.registered.get(instance) not in (None, CRITICAL) for instance in seen.expected)
    return f"{good} of {len(seen.expected)}"


def _graph_problems(seen: Discovered) -> Iterator[str]:
    """What keeps edges from being in force, and, found independently of that, whether the start order obeys them."""
    yield from seen.graph_problems
    places = {service: n for n, service in enumerate(seen.graph.in_start_order(seen.graph.services))}
    in_force = {(edge.service, edge.dependency) for edge in seen.graph.edges}
    for service in seen.graph.services:
        if service not in places:
            yield f"{service} has no place in the start order"
    for edge in seen.edges:
        if (edge.service, edge.dependency) not in in_force:
            yield f"{edge.service} → {edge.dependency} is in the KV store and not in force"
        elif places.get(edge.dependency, 0) >= places.get(edge.service, 0):
            yield f"{edge.service} would be started before {edge.dependency}"


def _graph_figure(seen: Discovered) -> str:
    depths = seen.graph.depths()
    return f"{len(seen.graph.edges)} edges, {max(depths.values(), default=0)} levels"


def _endpoints(seen: Discovered) -> Line:
    text = "Health endpoints validated"
    if not seen.probes:
        return unchecked(text, "none of them can be reached from here" if seen.elsewhere else "there are none")
    good = sum(problem is None for problem in seen.probes.values())
    figure = f"{good} of {len(seen.probes)} answered"
    if seen.elsewhere:
        figure += f", {seen.elsewhere} only to their own machine"
    return line(text, [f"{place}: {problem}" for place, problem in seen.probes.items() if problem is not None], figure)


# --- asking -----------------------------------------------------------------------------------------------------


async def _probe_all(
    state: StackState, instances: tuple[Instance, ...], here: Collection[Instance]
) -> tuple[Mapping[str, str | None], int]:
    targets: dict[str, tuple[Instance, str]] = {}
    elsewhere = 0
    problems: dict[str, str | None] = {}
    for instance in instances:
        try:
            spec = expanded(state, instance)
        except InvalidInput as error:
            problems[str(instance)] = str(error)
            continue
        for target in _targets(spec) if spec is not None else ():
            if instance in here or not is_loopback(urlsplit(target).hostname or ""):
                targets.setdefault(target, (instance, target))
            else:
                elsewhere += 1
    async with (
        httpx.AsyncClient(trust_env=False, timeout=PROBE_SECONDS, verify=False) as client,  # noqa: S501 - see _probe
        asyncio.TaskGroup() as group,
    ):
        asked = {place: group.create_task(_probe(client, target)) for place, (_, target) in targets.items()}
    for place, (instance, _) in targets.items():
        problems[f"{instance.service} {place}"] = asked[place].result()
    return problems, elsewhere


def _targets(spec: ServiceSpec) -> Iterator[str]:
    """What can be asked of a service: its health endpoint, and what its own checks ask."""
    if spec.health_endpoint is not None:
        yield spec.health_endpoint
    for check in spec.checks:
        if check.kind is CheckKind.HTTP and check.method == "GET" and not check.headers:
            yield check.target
        elif check.kind is CheckKind.TCP:
            yield f"tcp://{check.target}"


async def _probe(client: httpx.AsyncClient, target: str) -> str | None:
    """What is wrong with an endpoint. Certificates are Consul's checks' concern: they know which CA is meant."""
    parts = urlsplit(target)
    if parts.scheme not in ("http", "https"):
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return await connect(parts.hostname or "", parts.port or 0)
        except (TimeoutError, ValueError):
            return "no answer"
    try:
        response = await client.get(target, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return str(error) or type(error).__name__
    good = response.is_success or response.status_code == DEGRADED
    return None if good else f"HTTP {response.status_code}"


def is_passing(entry: ServiceHealth | None) -> bool:
    """Whether Consul shows an instance as fit for its clients."""
    return entry is not None and entry.status != CRITICAL
