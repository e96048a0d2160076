"""The checks of the stack's services: their definitions as they are rendered, and what they print as they run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Final

from citadel_consul.config.settings import Settings
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.finding import Finding, Report, Severity
from citadel_consul.core.linting.definitions import Circumstances, Registration, lint_definitions
from citadel_consul.core.linting.outputs import Printed, lint_outputs
from citadel_consul.core.model import CheckKind, ServiceSpec
from citadel_consul.doctor.site import Site
from citadel_consul.errors import InvalidInput
from citadel_consul.rendering.definition import render_definition
from citadel_consul.rendering.registration import mapping
from citadel_consul.rendering.scope import NodeContext
from citadel_consul.store.state import StackState, instance_of

LONGEST_WATCH_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.5
_SOMEWHERE: Final = "127.0.0.1"


async def examine_checks(site: Site, state: StackState, *, watch: bool) -> Report:
    """All that is bad practice; with ``watch`` also outputs that change, for which each check is seen to run again."""
    snapshot = state.snapshot()
    records = {record.node: record for record in state.agents.values.values()}
    here = {
        node for node, record in records.items() if site.agent is not None and record.consul_node == site.agent.node
    }
    forbidding = here if site.agent is not None and not site.agent.runs_scripts else set()
    addresses = {node: record.address for node, record in records.items()}
    report = lint_specs(snapshot.specs.values(), site.stack, site.settings, addresses, frozenset(forbidding))
    if not watch or not here:
        return report
    intervals = [
        check.interval_seconds
        for spec in snapshot.specs.values()
        if here.intersection(spec.nodes)
        for check in spec.checks
        if check.kind is not CheckKind.TTL
    ]
    seconds = min(LONGEST_WATCH_SECONDS, max(intervals, default=0.0) + 1.0)
    volatile = await _watch_outputs(site.client, site.stack, seconds)
    summary = f"{report.summary}; outputs watched for {seconds:g} s"
    return Report(report.area, summary, (*report.findings, *volatile))


def lint_specs(
    specs: Iterable[ServiceSpec],
    stack: str,
    settings: Settings,
    addresses: Mapping[str, str] | None = None,
    forbidding: frozenset[str] = frozenset(),
) -> Report:
    """The linter over what the node agents would register. ``addresses`` are those of the nodes, as far as they are
    known; the nodes ``forbidding`` take no script checks."""
    directories = (settings.template_dir,) if settings.template_dir is not None else ()
    registrations, findings, known = [], [], tuple(specs)
    for spec in known:
        for node in spec.nodes:
            context = NodeContext(node, (addresses or {}).get(node, _SOMEWHERE), stack)
            try:
                definition = render_definition(spec, context, directories)
            except InvalidInput as error:
                findings += [_unrendered(p.place, p.message, p.remedy) for p in error.problems]
            else:
                registrations.append(Registration(node, mapping(definition["service"], "service")))
    around = Circumstances(forbidding, {spec.name: spec.recovery.total_seconds for spec in known})
    found = (*dict.fromkeys(findings), *lint_definitions(registrations, around))
    return Report("checks", f"{len(registrations)} registrations of {len(known)} services judged", found)


def _unrendered(place: str, message: str, remedy: str) -> Finding:
    return Finding("not-rendered", Severity.ERROR, place, message, remedy or "mend the stack file or the template")


async def _watch_outputs(client: ConsulClient, stack: str, seconds: float) -> tuple[Finding, ...]:
    """The checks of a stack on this agent that print something else within ``seconds``, without another status."""
    deadline = time.monotonic() + seconds
    first = await _printed(client, stack)
    found: dict[str, Finding] = {}
    while time.monotonic() < deadline and len(found) < len(first):
        await asyncio.sleep(_POLL_SECONDS)
        now = await _printed(client, stack)
        for finding in lint_outputs(first, now):
            found.setdefault(finding.place, finding)
        first.update({i: p for i, p in now.items() if i not in first or _begins_anew(first[i], p)})
    return tuple(found[place] for place in sorted(found))


def _begins_anew(before: Printed, now: Printed) -> bool:
    """Whether the next output is to be compared with ``now``: the check had not run yet, or has changed its status."""
    return not before.output or before.status != now.status


async def _printed(client: ConsulClient, stack: str) -> dict[str, Printed]:
    checks = (await client.agent_checks()).values()
    return {
        check.check_id: Printed(f"{instance}, check {check.name}", check.status, check.output)
        for check in checks
        if (instance := instance_of(stack, check.service_id)) is not None and not check.is_maintenance
    }
