"""Liveness: while Consul does not call an instance passing, its node agent runs the same checks and says what it finds.

A service that Consul calls passing is not asked: that is what Consul is there for, and asking twice would be twice the
work for every service. One watch on the checks of this node tells when to look closer.

The agent can run http, tcp and script checks. For the others (grpc, ttl) it asks the Consul agent of its own node,
which runs them: what the catalog knows, it knows from that one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from citadel_consul.agent.examination import Diagnosis, Examination
from citadel_consul.agent.readiness import PROBED, Finding, Prober
from citadel_consul.agent.runner import InstanceRunner
from citadel_consul.consul.catalog import CRITICAL, PASSING, CheckState
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.watch import Fresh, watch
from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Check, CheckKind, Instance, ServiceSpec
from citadel_consul.errors import CitadelError
from citadel_consul.rendering.identity import check_id, service_id
from citadel_consul.store.state import instance_of

NOT_PASSING = f'Status != "{PASSING}"'
"""Consul's filter for what is of interest: of a node with fifty services most are well, at each change of one."""
LOOK_SECONDS = 1.0
LATE_SECONDS = 5.0
"""How long a start may take before it is said what it waits for."""
SHORTEST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
PROBES_PER_INTERVAL = 3


@dataclass(frozen=True, slots=True)
class Place:
    """Where the instances are: the stack, the node as citadel names it and as Consul does."""

    stack: str
    node: str
    consul_node: str


class Liveness:
    """Examines the instances of one node that Consul does not call passing. Run :meth:`run` in a task."""

    def __init__(
        self,
        client: ConsulClient,
        place: Place,
        prober: Prober,
        runners: Mapping[str, InstanceRunner],
        spec_of: Callable[[str], ServiceSpec | None],
        wall: Callable[[], float],
    ) -> None:
        self._client = client
        self._place = place
        self._prober = prober
        self._runners = runners
        self._spec_of = spec_of
        self._wall = wall
        self._suspects: frozenset[str] = frozenset()
        self._examined: set[str] = set()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Watch and examine until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            while True:
                for service, runner in self._runners.items():
                    if self._is_due(service, runner):
                        self._examined.add(service)
                        group.create_task(self._examine(service, runner))
                self._news.clear()
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._news.wait()
                except TimeoutError:
                    continue

    async def _watch(self) -> None:
        node = self._place.consul_node
        async for news in watch(lambda index, wait: self._client.health_node(node, index, wait, filter=NOT_PASSING)):
            if isinstance(news, Fresh):
                self._suspects = frozenset(self._suspected(news.value))
                self._news.set()

    def _suspected(self, checks: Iterable[CheckState]) -> Iterable[str]:
        for check in checks:
            instance = instance_of(self._place.stack, check.service_id)
            mine = instance is not None and instance.node == self._place.node
            if instance is not None and mine and not check.is_maintenance:
                yield instance.service

    def _is_due(self, service: str, runner: InstanceRunner) -> bool:
        return service not in self._examined and self._is_of_interest(service, runner)

    def _is_of_interest(self, service: str, runner: InstanceRunner) -> bool:
        """Whether it should serve, and either Consul says that it does not, or it has been at it for long."""
        seen = runner.observed
        if seen.phase is Phase.READY:
            return service in self._suspects
        return seen.phase is Phase.STARTING and self._wall() > seen.since + LATE_SECONDS

    async def _examine(self, service: str, runner: InstanceRunner) -> None:
        """Probe one instance again and again, as long as it is the same life of it and in question."""
        begin = runner.observed
        examination = Examination()
        loop = asyncio.get_running_loop()

        def goes_on() -> bool:
            same = (runner.observed.phase, runner.observed.since) == (begin.phase, begin.since)
            return same and self._is_of_interest(service, runner)

        while goes_on() and (spec := self._spec_of(service)) is not None and not spec.oneshot:
            at, clock = self._wall(), loop.time()
            checked = await self._findings(spec, runner.instance)
            if checked is not None and goes_on():
                finding, patience = _worst(checked)
                patience = patience if begin.phase is Phase.READY else 0.0
                runner.diagnose(examination.take(finding, patience, at=at, clock=clock))
            pause, slept_from = _pause(spec), loop.time()
            await asyncio.sleep(pause)
            if loop.time() - slept_from - pause > _lateness(spec):
                examination.starved(loop.time())
        self._examined.discard(service)
        if (runner.observed.phase, runner.observed.since) == (begin.phase, begin.since):
            runner.diagnose(Diagnosis())

    async def _findings(self, spec: ServiceSpec, instance: Instance) -> list[tuple[Check, Finding | None]] | None:
        """What each check finds now; None if it cannot be known."""
        others = [check for check in spec.checks if check.kind not in PROBED]
        try:
            told = await self._told_by_consul(instance, others) if others else []
        except CitadelError:
            return None
        async with asyncio.TaskGroup() as group:
            probes = [
                (check, group.create_task(self._prober.finding_of(check)))
                for check in spec.checks
                if check.kind in PROBED
            ]
        return [*told, *((check, probe.result()) for check, probe in probes)]

    async def _told_by_consul(self, instance: Instance, checks: list[Check]) -> list[tuple[Check, Finding | None]]:
        identity = service_id(self._place.stack, instance.service, instance.node)
        known = await self._client.agent_checks(f'ServiceID == "{identity}"')
        found: list[tuple[Check, Finding | None]] = []
        for check in checks:
            state = known.get(check_id(identity, check.name))
            if state is not None and state.status != PASSING:
                text = f"Consul's {check.kind} check {check.name} is {state.status}"
                found.append((check, Finding(text, critical=state.status == CRITICAL)))
            else:
                found.append((check, None))
        return found


def _worst(checked: list[tuple[Check, Finding | None]]) -> tuple[Finding | None, float]:
    """The worst finding, with the longest interval of the checks that found anything as bad."""
    failed = [(check, finding) for check, finding in checked if finding is not None]
    worst = [pair for pair in failed if pair[1].critical] or failed
    if not worst:
        return None, 0.0
    text = "; ".join(f"{check.name}: {finding.text}" for check, finding in worst)
    return Finding(text, critical=worst[0][1].critical), max(_interval(check) for check, _ in worst)


def _interval(check: Check) -> float:
    return check.ttl_seconds if check.kind is CheckKind.TTL else check.interval_seconds


def _lateness(spec: ServiceSpec) -> float:
    """How late this process may be until its probes are worth nothing: an answer needs some turns to be read."""
    return min((check.timeout_seconds for check in spec.checks if check.kind in PROBED), default=1.0) / 2


def _pause(spec: ServiceSpec) -> float:
    shortest = min((_interval(check) for check in spec.checks), default=LONGEST_PAUSE_SECONDS)
    return min(LONGEST_PAUSE_SECONDS, max(SHORTEST_PAUSE_SECONDS, shortest / PROBES_PER_INTERVAL))
