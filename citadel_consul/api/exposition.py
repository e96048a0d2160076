"""``/metrics``: what Prometheus scrapes, made at the moment of the scrape.

Base units, the prefix ``citadel_``, and labels that a stack bounds: services, nodes and words of state, never ids.
What the scraper's token may not read, and all of the stack while Consul does not answer, is left out, and
``citadel_stack_readable`` says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from citadel_consul import __version__
from citadel_consul.api.meter import Meter
from citadel_consul.core.answers.health import uptime_seconds
from citadel_consul.core.answers.problems import missing_agents
from citadel_consul.core.health import SERVING, Status, service_statuses
from citadel_consul.core.incident import IncidentState
from citadel_consul.core.operation import Kind, OperationState
from citadel_consul.core.snapshot import Snapshot
from citadel_consul.core.stats import ServiceStats, Standing, availability, stack_account
from citadel_consul.orchestrator.orchestrator import Orchestrator
from citadel_consul.telemetry.footprint import Footprint


@dataclass(frozen=True, slots=True)
class Reading:
    """The stack as read for one scrape; ``snapshot`` is None if it could not be."""

    snapshot: Snapshot | None
    led: bool
    seconds: float
    now: float


def expose(meter: Meter, orchestrator: Orchestrator, reading: Reading) -> bytes:
    """All metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(Footprint())
    registry.register(_Scrape(meter, orchestrator, reading))
    return generate_latest(registry)


class _Scrape(Collector):
    """The metrics of one scrape."""

    def __init__(self, meter: Meter, orchestrator: Orchestrator, reading: Reading) -> None:
        self._meter = meter
        self._orchestrator = orchestrator
        self._reading = reading

    def collect(self) -> Iterable[Metric]:
        yield from self._process()
        snapshot = self._reading.snapshot
        yield _gauge("citadel_stack_readable", "Whether the stack could be read for this scrape.", snapshot is not None)
        yield _gauge("citadel_stack_read_duration_seconds", "How long reading the stack took.", self._reading.seconds)
        if snapshot is not None:
            yield _gauge("citadel_stack_led", "Whether any orchestrator leads the stack.", self._reading.led)
            yield from _services(snapshot, self._reading.now)
            yield from _accounts(snapshot, self._reading.now)
            yield from _stack_account(snapshot, self._reading.now)
            yield from _incidents(snapshot)
            yield from _operations(snapshot)
            yield from _order(snapshot)

    def _process(self) -> Iterator[Metric]:
        orchestrator, turns = self._orchestrator, self._orchestrator.turns
        info = GaugeMetricFamily("citadel_build_info", "The version that runs; always 1.", labels=("version", "stack"))
        info.add_metric((__version__, orchestrator.config.stack), 1)
        yield info
        yield _gauge("citadel_start_time_seconds", "When it was started, in unix seconds.", orchestrator.started_at)
        yield _gauge("citadel_leader", "Whether this orchestrator leads.", orchestrator.leading)
        if orchestrator.epoch is not None:
            yield _gauge("citadel_leader_epoch", "The epoch of its leadership, if it leads.", orchestrator.epoch)
        yield _counter("citadel_control_loop_turns", "Decisions of the present leadership.", turns.turns)
        yield _counter("citadel_control_loop_transactions", "Fenced transactions written.", turns.transactions)
        yield _counter("citadel_control_loop_decide_seconds", "Time spent deciding.", turns.decide_seconds)
        requests = CounterMetricFamily(
            "citadel_api_requests", "Requests that were answered.", labels=("method", "route", "code")
        )
        for asked, count in self._meter.requests.items():
            requests.add_metric((asked.method, asked.route, str(asked.code)), count)
        yield requests


def _services(snapshot: Snapshot, now: float) -> Iterator[Metric]:
    statuses = service_statuses(snapshot, now)
    counts = Counter(statuses.values())
    by_status = GaugeMetricFamily("citadel_services", "Services by how they are.", labels=("status",))
    for word in Status:
        by_status.add_metric((str(word),), counts[word])
    yield by_status
    up = GaugeMetricFamily("citadel_service_up", "Whether a service serves.", labels=("service", "critical"))
    uptime = GaugeMetricFamily("citadel_service_uptime_seconds", "For how long it has been ready.", labels=("service",))
    starts = CounterMetricFamily("citadel_service_starts", "Starts of its instances.", labels=("service",))
    for service, word in statuses.items():
        up.add_metric((service, str(snapshot.specs[service].critical).lower()), word in SERVING)
        seconds = uptime_seconds(snapshot, service, now)
        if seconds is not None:
            uptime.add_metric((service,), seconds)
        found = (snapshot.observed.get(instance) for instance in snapshot.instances(service))
        starts.add_metric((service,), sum(observed.starts for observed in found if observed is not None))
    yield from (up, uptime, starts)


def _accounts(snapshot: Snapshot, now: float) -> Iterator[Metric]:
    """What the leader has counted of each service."""
    known = {name: snapshot.stats[name] for name in snapshot.specs if name in snapshot.stats}
    ratio = GaugeMetricFamily(
        "citadel_service_availability_ratio", "Share of its wanted time in which it served.", labels=("service",)
    )
    counters = {
        "up_seconds": "Time in which its instances served.",
        "planned_downtime_seconds": "Time in which they did not, by order.",
        "unplanned_downtime_seconds": "Time in which they did not, and should have.",
        "failures": "How often an instance stopped serving unasked.",
        "restarts": "Starts of instances beyond their first.",
        "recoveries_succeeded": "Recoveries that brought it back.",
        "recoveries_failed": "Recoveries that did not.",
    }
    families = {
        name: CounterMetricFamily(f"citadel_service_{name}", text, labels=("service",))
        for name, text in counters.items()
    }
    for service, stats in known.items():
        share = availability(stats, now)
        if share is not None:
            ratio.add_metric((service,), share / 100.0)
        for name, value in _counted(stats, now).items():
            families[name].add_metric((service,), value)
    yield ratio
    yield from families.values()


def _counted(stats: ServiceStats, now: float) -> dict[str, float]:
    sums = stats.sums_at(now)
    return {
        "up_seconds": sums[Standing.UP],
        "planned_downtime_seconds": sums[Standing.PLANNED],
        "unplanned_downtime_seconds": sums[Standing.UNPLANNED],
        "failures": stats.failures,
        "restarts": stats.restarts,
        "recoveries_succeeded": stats.recoveries_succeeded,
        "recoveries_failed": stats.recoveries_failed,
    }


def _stack_account(snapshot: Snapshot, now: float) -> Iterator[Metric]:
    account = stack_account(snapshot.stats)
    sums = account.sums_at(now) if account is not None else dict.fromkeys(Standing, 0.0)
    yield _counter("citadel_stack_up_seconds", "Time in which all critical services served.", sums[Standing.UP])
    text = "Time in which one did not, by order."
    yield _counter("citadel_stack_planned_downtime_seconds", text, sums[Standing.PLANNED])
    text = "Time in which one did not, and should have."
    yield _counter("citadel_stack_unplanned_downtime_seconds", text, sums[Standing.UNPLANNED])


def _incidents(snapshot: Snapshot) -> Iterator[Metric]:
    counts = Counter(incident.state for incident in snapshot.incidents.values())
    family = GaugeMetricFamily("citadel_incidents", "Incidents that are not over, by state.", labels=("state",))
    for state in IncidentState:
        if state is not IncidentState.CLOSED:
            family.add_metric((str(state),), counts[state])
    yield family


def _operations(snapshot: Snapshot) -> Iterator[Metric]:
    counts = Counter((op.kind, op.state) for op in snapshot.operations)
    family = GaugeMetricFamily(
        "citadel_operations", "Operations that are remembered, by kind and state.", labels=("kind", "state")
    )
    for kind in Kind:
        for state in OperationState:
            family.add_metric((str(kind), str(state)), counts[kind, state])
    yield family


def _order(snapshot: Snapshot) -> Iterator[Metric]:
    yield _gauge("citadel_agents", "Node agents that hold their lock.", len(snapshot.agents))
    yield _gauge("citadel_agents_missing", "Nodes with services and without an agent.", len(missing_agents(snapshot)))
    yield _gauge("citadel_holds", "Holds that are set.", len(snapshot.holds))
    yield _gauge("citadel_unusable_keys", "Keys that cannot be used as they stand.", len(snapshot.faults))
    yield _gauge("citadel_rejected_edges", "Edges that are not in force.", len(snapshot.graph_faults))


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=float(value))
