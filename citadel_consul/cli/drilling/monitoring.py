"""Phase 3: everything is checked, what is reported agrees with Consul, and what degrades is noticed.

The last is tried on a real service: Consul is given one more check of it, which warns, and it is measured how long it
takes until the service is called degraded. The check is taken away again whatever happens; should the drill itself be
killed, it goes on warning for a day and harms nobody, since DNS leaves out only what is critical.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from citadel_consul.cli.drilling.site import Site, consul_id, lasting
from citadel_consul.cli.drilling.verdict import Line, line, unchecked
from citadel_consul.consul.catalog import CRITICAL, PASSING, WARNING, ServiceHealth
from citadel_consul.core.answers.health import health_answer
from citadel_consul.core.health import Status, instance_status, service_status
from citadel_consul.core.model import Instance
from citadel_consul.core.snapshot import Snapshot
from citadel_consul.errors import CitadelError, PermissionDenied

CHECK_PREFIX = "citadel-drill:"
NOTICE_SECONDS = 10.0
"""How long it may take until a degraded service is noticed."""
AGREE_SECONDS = 5.0
_WORDS = {PASSING: Status.HEALTHY, WARNING: Status.DEGRADED, CRITICAL: Status.UNHEALTHY}


@dataclass(frozen=True, slots=True)
class Degradation:
    """What happened when an instance was made to look degraded. None seconds: it was not noticed in time."""

    instance: Instance
    noticed_seconds: float | None = None
    over_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Monitored:
    """What is checked, and who says what.

    ``wanted`` is how many checks the stack file gives each instance, ``checks`` the states of those that Consul has.
    ``reported`` are citadel's words, ``witnessed`` those that follow from Consul alone.
    """

    wanted: Mapping[Instance, int]
    checks: Mapping[Instance, tuple[str, ...]]
    reported: Mapping[str, Status] = field(default_factory=dict)
    witnessed: Mapping[str, Status] = field(default_factory=dict)
    degradation: Degradation | None = None
    why_not: str = ""


async def monitor(site: Site) -> Monitored:
    """Gather the evidence."""
    snapshot = await site.snapshot()
    await site.until(lambda: _agree(site), AGREE_SECONDS)
    snapshot, catalog = await _both(site)
    degradation, why_not = await _degrade(site, snapshot, catalog)
    return Monitored(
        wanted={instance: len(snapshot.specs[instance.service].checks) for instance in lasting(snapshot)},
        checks={instance: _states(site.stack, instance, entry) for instance, entry in catalog.items()},
        reported=_reported(snapshot),
        witnessed=_witnessed(snapshot, catalog),
        degradation=degradation,
        why_not=why_not,
    )


def judge_monitoring(seen: Monitored) -> tuple[Line, ...]:
    """The lines of phase 3."""
    return (
        _operational(seen),
        _accurate(seen),
        _detection(seen),
    )


def _operational(seen: Monitored) -> Line:
    problems = []
    for instance, wanted in seen.wanted.items():
        states = seen.checks.get(instance, ())
        if not states:
            problems.append(f"{instance} has no check")
        elif len(states) < wanted:
            problems.append(f"{instance} has {len(states)} of its {wanted} checks")
        elif CRITICAL in states:
            problems.append(f"a check of {instance} is critical")
    count = sum(len(seen.checks.get(instance, ())) for instance in seen.wanted)
    return line("Health checks operational for all services", problems, f"{count} checks, {len(seen.wanted)} instances")


def _accurate(seen: Monitored) -> Line:
    problems = [
        f"{service} is reported as {seen.reported.get(service, Status.UNKNOWN)}, and is {truth} by Consul"
        for service, truth in seen.witnessed.items()
        if seen.reported.get(service) is not truth
    ]
    agree = len(seen.witnessed) - len(problems)
    return line("Health status reporting accurate", problems, f"{agree} of {len(seen.witnessed)} agree with Consul")


def _detection(seen: Monitored) -> Line:
    text, tried = "Degraded service detection working", seen.degradation
    if tried is None:
        return unchecked(text, seen.why_not or "nothing could be made to look degraded")
    if tried.noticed_seconds is None:
        return line(text, [f"{tried.instance} warned for {NOTICE_SECONDS:g} s and was not called degraded"])
    if tried.over_seconds is None:
        return line(text, [f"{tried.instance} is still called degraded {NOTICE_SECONDS:g} s after its warning ended"])
    return line(text, (), f"{tried.instance.service}, noticed after {1000 * tried.noticed_seconds:.0f} ms")


# --- what is reported, and what is so -------------------------------------------------------------------------------


async def _both(site: Site) -> tuple[Snapshot, Mapping[Instance, ServiceHealth]]:
    snapshot = await site.snapshot()
    return snapshot, await site.catalog(tuple(snapshot.specs))


async def _agree(site: Site) -> bool:
    """Whether both sides say the same: they were asked one after the other, so a change in between is no lie."""
    snapshot, catalog = await _both(site)
    reported = _reported(snapshot)
    return all(reported.get(service) is truth for service, truth in _witnessed(snapshot, catalog).items())


def _reported(snapshot: Snapshot) -> Mapping[str, Status]:
    """The words of the health answer, as the API and ``citadel health`` give it."""
    answer = health_answer(snapshot, time.time())
    return {service: health.status for service, health in answer.service_health.items()}


def _witnessed(snapshot: Snapshot, catalog: Mapping[Instance, ServiceHealth]) -> Mapping[str, Status]:
    """How each service is by Consul's catalog alone: healthy, degraded, unhealthy, or (not there) stopped."""
    found = {}
    for service, spec in snapshot.specs.items():
        if spec.oneshot or not spec.checks:
            continue
        words = {_WORDS[catalog[i].status] if i in catalog else Status.STOPPED for i in spec.instances}
        found[service] = words.pop() if len(words) == 1 else Status.DEGRADED
    return found


def _states(stack: str, instance: Instance, entry: ServiceHealth) -> tuple[str, ...]:
    """The states of an instance's own checks."""
    own = consul_id(stack, instance)
    return tuple(c.status for c in entry.checks if c.service_id == own and not c.check_id.startswith(CHECK_PREFIX))


# --- making something degraded ----------------------------------------------------------------------------------


async def _degrade(
    site: Site, snapshot: Snapshot, catalog: Mapping[Instance, ServiceHealth]
) -> tuple[Degradation | None, str]:
    instance = await _candidate(site, snapshot, catalog)
    if instance is None:
        return None, "no healthy instance is registered with the Consul agent that is asked here"
    site.say(f"making {instance} look degraded …")
    try:
        return await _try(site, instance), ""
    except PermissionDenied as error:
        return None, f"the token may not add a check to {instance.service}: {error}"


async def _candidate(site: Site, snapshot: Snapshot, catalog: Mapping[Instance, ServiceHealth]) -> Instance | None:
    """What hurts least: not critical, with few dependents; and never what would be restarted for it."""
    here = await site.client.agent_services()
    now = time.time()
    fit = [
        instance
        for instance in lasting(snapshot)
        if consul_id(site.stack, instance) in here
        and instance in catalog
        and instance_status(snapshot, instance, now) is Status.HEALTHY
        and not snapshot.specs[instance.service].recovery.restart_degraded
    ]
    graph, specs = snapshot.graph, snapshot.specs
    return min(fit, key=lambda i: (specs[i.service].critical, len(graph.dependents(i.service)), i), default=None)


async def _try(site: Site, instance: Instance) -> Degradation:
    check = f"{CHECK_PREFIX}{consul_id(site.stack, instance)}"
    definition = {
        "ID": check,
        "Name": "citadel drill",
        "Notes": "Added by `citadel drill` to see whether it is noticed; it can be removed at any time.",
        "ServiceID": consul_id(site.stack, instance),
        "TTL": "24h",
        "Status": WARNING,
    }
    try:
        await site.client.register_check(definition)
        noticed = await site.until(lambda: _is(site, instance, Status.DEGRADED), NOTICE_SECONDS)
    finally:
        await site.client.deregister_check(check)
    over = await site.until(lambda: _is(site, instance, Status.HEALTHY), NOTICE_SECONDS)
    return Degradation(instance, noticed, over)


async def _is(site: Site, instance: Instance, word: Status) -> bool:
    return service_status(await site.snapshot(), instance.service, time.time()) is word


async def take_away_leftovers(site: Site) -> None:
    """Remove the checks of drills that were killed."""
    try:
        left = [check for check in await site.client.agent_checks() if check.startswith(CHECK_PREFIX)]
        for check in left:
            await site.client.deregister_check(check)
    except CitadelError:
        return  # the phase itself says what it may not do
