"""The rules of the stack file that no single field can break alone.

Each rule is a generator of findings over outlines, and goes on after the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from citadel_consul.config.addresses import HostPort, parse_endpoint
from citadel_consul.config.backendrules import backend_findings
from citadel_consul.config.checkrules import check_findings
from citadel_consul.config.durations import format_duration, seconds_or_none
from citadel_consul.config.findings import Finding, Path
from citadel_consul.config.outline import DependencyOutline, ServiceOutline, as_mapping
from citadel_consul.config.suggestions import suggest
from citadel_consul.config.templating import is_template
from citadel_consul.core.graph import describe_cycle, find_cycles
from citadel_consul.core.model import Condition, Edge
from citadel_consul.core.names import is_label
from citadel_consul.errors import InvalidInput

Services = Mapping[str, ServiceOutline]


def rule_findings(services: Services) -> Iterator[Finding]:
    """Everything that breaks a rule between fields or between services."""
    for service in services.values():
        if service.readable:
            yield from _required(service)
            yield from backend_findings(service)
        yield from _duplicates(service)
        yield from _recovery(service)
        yield from check_findings(service)
        yield from _dependencies(service, services)
    yield from _cycles(services)
    yield from _port_clashes(services)


def at(service: ServiceOutline, *path: str | int) -> Path:
    """The path of something within a service."""
    return ("services", service.name, *path)


def _required(service: ServiceOutline) -> Iterator[Finding]:
    examples = {"type": "type: database", "nodes": "nodes: [node-1]", "backend": "backend: {command: [program]}"}
    for field, example in examples.items():
        if field not in service.data:
            yield Finding(at(service, field), "is missing, here and in the defaults", f"add `{example}`")


def _duplicates(service: ServiceOutline) -> Iterator[Finding]:
    for field, items in (("nodes", service.nodes), ("tags", service.tags)):
        for index, item in enumerate(items):
            if item in items[:index]:
                yield Finding(at(service, field, index), f"{item!r} is given twice", "remove one")


def _recovery(service: ServiceOutline) -> Iterator[Finding]:
    recovery = as_mapping(service.data.get("recovery"))
    delay, longest = seconds_or_none(recovery.get("delay")), seconds_or_none(recovery.get("max_delay", "5m"))
    if delay is not None and longest is not None and delay > longest:
        message = f"{format_duration(delay)} is longer than max_delay ({format_duration(longest)})"
        yield Finding(at(service, "recovery", "delay"), message, "shorten delay, or lengthen max_delay")


def _dependencies(service: ServiceOutline, services: Services) -> Iterator[Finding]:
    seen: set[str] = set()
    for dependency in service.dependencies:
        path = at(service, *dependency.path)
        if dependency.name in seen:
            yield Finding(path, f"{dependency.name!r} is given twice", "remove one")
        elif dependency.name == service.name:
            yield Finding(path, f"{service.name!r} depends on itself", "remove it")
        elif dependency.name not in services and is_label(dependency.name):
            others = [name for name in services if name != service.name]
            remedy = suggest(dependency.name, others, "known services")
            yield Finding(path, f"there is no service {dependency.name!r}", remedy)
        elif dependency.name in services:
            yield from _edge(path, dependency, services[dependency.name])
        seen.add(dependency.name)


def _edge(path: Path, dependency: DependencyOutline, target: ServiceOutline) -> Iterator[Finding]:
    if dependency.condition is Condition.COMPLETED and not target.oneshot:
        message = f"{target.name!r} is not a oneshot service and never completes"
        yield Finding((*path, "condition"), message, f"use healthy, or set `oneshot: true` for {target.name}")
    if dependency.condition is Condition.HEALTHY and target.oneshot:
        message = f"{target.name!r} is a oneshot service: it completes, and has no health"
        yield Finding((*path, "condition"), message, "use completed")
    wanted, instances = dependency.min_instances, len(target.nodes)
    if wanted is not None and 0 < instances < wanted:
        message = f"{wanted} is more than the instances of {target.name!r} ({instances})"
        yield Finding((*path, "min_instances"), message, f"use {instances} or less, or give {target.name} more nodes")


def _cycles(services: Services) -> Iterator[Finding]:
    edges = [
        Edge(service.name, dependency.name)
        for service in services.values()
        for dependency in service.dependencies
        if dependency.name in services and dependency.name != service.name
    ]
    for cycle in find_cycles(dict.fromkeys(edges)):
        service = services[cycle[0]]
        path = next(entry.path for entry in service.dependencies if entry.name == cycle[1])
        message = f"the dependencies form a cycle: {describe_cycle(cycle)}"
        yield Finding(at(service, *path), message, "remove one of these dependencies; soft ones count too")


class _Claim(NamedTuple):
    service: str
    address: HostPort


def _port_clashes(services: Services) -> Iterator[Finding]:
    claims: dict[tuple[str, int], list[_Claim]] = {}
    for service in services.values():
        address = _address(service.endpoint)
        if address is None:
            continue
        for node in dict.fromkeys(service.nodes):
            earlier = claims.setdefault((node, address.port), [])
            clash = next((claim for claim in earlier if _same_address(claim.address, address)), None)
            if clash is not None:
                message = f"port {address.port} on node {node!r} is claimed by {clash.service!r} and {service.name!r}"
                yield Finding(at(service, "endpoint"), message, "give one of them another port or node")
                break
            earlier.append(_Claim(service.name, address))


_ANY_HOST = ""


def _address(endpoint: str | None) -> HostPort | None:
    """Host and port of an endpoint, ``_ANY_HOST`` for a host that is known on the node only."""
    if endpoint is None:
        return None
    host_part, _, port = endpoint.partition("://")[2].partition("/")[0].rpartition(":")
    if is_template(host_part):
        return HostPort(_ANY_HOST, int(port)) if port.isascii() and port.isdigit() else None
    try:
        host, number = parse_endpoint(endpoint)
    except InvalidInput:
        return None  # reported as the shape of the field, or a template in place of the port
    host = host.lower()
    return HostPort("127.0.0.1" if host == "localhost" else host, number)


def _same_address(one: HostPort, other: HostPort) -> bool:
    """Whether both could be one socket. Two hosts that are both spelled out, and differ, are two addresses."""
    return one.host == other.host or _ANY_HOST in (one.host, other.host)
