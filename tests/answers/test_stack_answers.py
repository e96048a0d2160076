"""What is said of a stack: status, services, health, dependencies, figures, operations."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from stack_at_a_moment import BEGAN, NOW, operation, ready, run, seeing, spec, stack, step

from citadel_consul.core.answers.dependencies import dependency_answer, dependency_debug_answer
from citadel_consul.core.answers.health import CheckFinding, health_answer, health_debug_answer
from citadel_consul.core.answers.metrics import is_whole_startup, metrics_answer
from citadel_consul.core.answers.operations import operation_answer, operations_answer
from citadel_consul.core.answers.services import services_answer
from citadel_consul.core.answers.status import Leadership, status_answer
from citadel_consul.core.health import Status
from citadel_consul.core.incident import STACK
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.measurement import CheckCounts, Measured, Measurement, NodeMeasurements
from citadel_consul.core.model import Check, CheckKind, Condition, Edge, Instance
from citadel_consul.core.operation import Kind, OperationState, StepAction
from citadel_consul.core.snapshot import CheckStatus, Fault, Hold
from citadel_consul.core.stats import Account, ServiceStats, Standing

LEADER = Leadership("n1:8000", "n1", "10.0.0.1:8000", since=BEGAN, epoch=7)
TWELVE = stack(*(spec(f"s{n}") for n in range(11)), spec("batch", critical=False))


def test_eleven_healthy_services_of_twelve_are_told_as_in_the_sites_document() -> None:
    snapshot = seeing(TWELVE, "batch", ready(), run(), CheckStatus.WARNING)
    done = operation(Kind.STARTUP, started_at=NOW - 245, ended_at=NOW)
    answer = status_answer(
        replace(snapshot, operations=(done,)), NOW, leadership=LEADER, started_at=NOW - 3600, standbys=("n2:8000",)
    )
    told = answer.orchestrator_status
    assert (told.status, told.uptime_seconds, told.startup_time_seconds) == ("operational", 3600.0, 245.0)
    assert (told.managed_services, told.healthy_services, told.unhealthy_services) == (12, 11, 1)
    assert told.last_health_check == "2025-07-15T14:30:00Z"
    assert told.services_by_status == {"healthy": 11, "degraded": 1}
    assert (told.leader, told.epoch, told.standbys) == ("n1:8000", 7, ("n2:8000",))
    health = answer.system_health
    assert (health.overall_status, health.health_score) == (Status.HEALTHY, 91.7)
    assert (health.critical_services_healthy, health.non_critical_services_healthy) == (True, False)


def test_what_is_not_known_is_none() -> None:
    answer = status_answer(stack(), NOW, leadership=None)
    told = answer.orchestrator_status
    unknown = (
        told.uptime_seconds,
        told.startup_time_seconds,
        told.leader,
        told.leader_since,
        told.epoch,
        told.standbys,
    )
    assert set(unknown) == {None}
    assert (answer.system_health.overall_status, answer.system_health.health_score) == (Status.UNKNOWN, None)


def test_stopped_services_are_neither_healthy_nor_unhealthy() -> None:
    told = status_answer(stack(spec("a"), spec("b"), serving=False), NOW, leadership=LEADER)
    status = told.orchestrator_status
    assert (status.managed_services, status.healthy_services, status.unhealthy_services) == (2, 0, 0)
    assert told.system_health.overall_status is Status.STOPPED


@pytest.mark.parametrize(
    ("kind", "state", "targets", "counts"),
    [
        (Kind.STARTUP, OperationState.SUCCEEDED, ("all",), True),
        (Kind.STARTUP, OperationState.FAILED, ("all",), False),
        (Kind.STARTUP, OperationState.SUCCEEDED, ("redis",), False),
        (Kind.RESTART, OperationState.SUCCEEDED, ("all",), False),
    ],
)
def test_the_startup_time_is_that_of_the_last_whole_startup_that_succeeded(
    kind: Kind, state: OperationState, targets: tuple[str, ...], counts: bool
) -> None:
    snapshot = replace(stack(spec("a")), operations=(operation(kind, state=state, targets=targets),))
    told = status_answer(snapshot, NOW, leadership=LEADER).orchestrator_status.startup_time_seconds
    assert told == (100.0 if counts else None)


def test_everything_that_is_wrong_besides_health_is_a_problem() -> None:
    broken = replace(
        stack(spec("a", "n1", "n2"), spec("b"), edges=(Edge("a", "b"), Edge("b", "a"), Edge("a", "nix"))),
        agents=frozenset({"n1"}),
        faults=(Fault("citadel/demo/edges/a/c", "is not JSON"),),
    )
    told = status_answer(broken, NOW, leadership=LEADER).orchestrator_status
    assert told.status == "degraded"
    assert [(p.kind, p.place) for p in told.problems] == [
        ("key", "citadel/demo/edges/a/c"),
        ("edge", "a → nix"),
        ("edge", "b → a"),
        ("agent", "n2"),
    ]
    leaderless = status_answer(broken, NOW, leadership=None).orchestrator_status
    assert (leaderless.status, leaderless.problems[0].kind) == ("leaderless", "leader")


def test_services_are_told_with_their_place_in_the_order() -> None:
    snapshot = stack(spec("gateway"), spec("qdrant"), spec("embedding"), edges=(
        Edge("gateway", "embedding"), Edge("embedding", "qdrant"), Edge("gateway", "qdrant"),
    ))  # fmt: skip
    told = {service.name: service for service in services_answer(snapshot, NOW).services}
    assert list(told) == ["qdrant", "embedding", "gateway"]
    assert [(s.startup_order, s.shutdown_order) for s in told.values()] == [(1, 3), (2, 2), (3, 1)]
    assert told["gateway"].dependencies == ("embedding", "qdrant")
    assert told["qdrant"].dependents == ("embedding", "gateway")


def test_each_instance_is_told_with_what_its_agent_says() -> None:
    snapshot = stack(spec("a", "n1", "n2"))
    exited = Observed(1, Phase.EXITED, since=NOW - 60, starts=4, detail="killed by SIGKILL")
    snapshot = replace(seeing(snapshot, "a", exited, run(), node="n2"), holds=(Hold("node", "n2"),))
    (told,) = services_answer(snapshot, NOW).services
    assert (told.status, told.held) == (Status.DEGRADED, True)
    assert [(i.node, i.status, i.phase, i.starts, i.detail) for i in told.instances] == [
        ("n1", Status.HEALTHY, "ready", 1, ""),
        ("n2", Status.HELD, "exited", 4, "killed by SIGKILL"),
    ]
    assert told.instances[1].since == "2025-07-15T14:29:00Z"


@pytest.mark.parametrize(
    ("own", "checks", "told"),
    [
        ("http://a/health", (Check("x", CheckKind.HTTP, "http://a/other"),), "http://a/health"),
        (None, (Check("x", CheckKind.HTTP, "http://a/live"),), "http://a/live"),
        (None, (Check("x", CheckKind.TTL), Check("y", CheckKind.TCP, "a:1")), "tcp://a:1"),
        (None, (Check("x", CheckKind.GRPC, "a:1/svc"),), "grpc://a:1/svc"),
        (None, (Check("x", CheckKind.TTL),), None),
        (None, (), None),
    ],
)
def test_the_health_endpoint_is_the_specs_or_that_of_a_check(
    own: str | None, checks: tuple[Check, ...], told: str | None
) -> None:
    snapshot = stack(replace(spec("a"), health_endpoint=own, checks=checks))
    assert services_answer(snapshot, NOW).services[0].health_endpoint == told


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("postgresql://app:s3cret@db:5432/app", "postgresql://app:***@db:5432/app"),
        ("redis://:s3cret@cache:6379", "redis://:***@cache:6379"),
        ("redis://:s3:cr@et@cache", "redis://:***@cache"),
        ("http://app@db:80/a:b@c", "http://app@db:80/a:b@c"),
        ("http://db:80/?to=a:b@c", "http://db:80/?to=a:b@c"),
    ],
)
def test_a_password_in_an_endpoint_is_not_told(endpoint: str, told: str) -> None:
    snapshot = stack(replace(spec("a"), endpoint=endpoint))
    assert services_answer(snapshot, NOW).services[0].endpoint == told


def _measured(**instances: Measurement) -> Measured:
    return Measured({"n1": NodeMeasurements("n1", BEGAN, CheckCounts(), instances)})


def test_health_tells_what_the_node_agents_measured() -> None:
    check = Check("x", CheckKind.HTTP, "http://a/health", timeout_seconds=2.0)
    snapshot = stack(replace(spec("a"), checks=(check,)), spec("b"), spec("job", oneshot=True))
    one = Measurement(CheckStatus.PASSING, NOW - 1, 500.0, {"gpu_utilization": 78.5, "memory_usage_mb": 2340})
    told = health_answer(snapshot, NOW, _measured(a=one)).service_health
    assert (told["a"].response_time_ms, told["a"].last_check) == (500.0, "2025-07-15T14:29:59Z")
    assert told["a"].figures == {"gpu_utilization": 78.5, "memory_usage_mb": 2340}
    assert told["a"].health_score == 93.8  # a quarter of its time-out: a sixteenth less
    assert told["a"].detail == ""
    assert (told["b"].response_time_ms, told["b"].detail) == (None, "it is not ready")
    assert told["job"].detail == ""


def test_figures_stand_beside_what_citadel_says_in_the_answer() -> None:
    one = Measurement(CheckStatus.PASSING, NOW, 12.0, {"request_rate": 125.3, "error_rate": 0.2})
    document = orjson.loads(orjson.dumps(health_answer(stack(spec("a")), NOW, _measured(a=one)).document()))
    assert document["service_health"]["a"] == {
        "status": "healthy",
        "response_time_ms": 12.0,
        "last_check": "2025-07-15T14:30:00Z",
        "uptime_seconds": 3598.0,
        "health_score": 100.0,
        "detail": "",
        "request_rate": 125.3,
        "error_rate": 0.2,
    }


def test_of_several_instances_the_slowest_counts_and_what_is_missing_is_said_with_its_node() -> None:
    snapshot = stack(spec("a", "n1", "n2", "n3"))
    nodes = {
        "n1": NodeMeasurements("n1", BEGAN, CheckCounts(), {"a": Measurement(None, NOW - 5, 5.0, {"queue_size": 2})}),
        "n2": NodeMeasurements("n2", BEGAN, CheckCounts(), {"a": Measurement(None, NOW - 9, 9.0, {"queue_size": 3})}),
    }
    told = health_answer(snapshot, NOW, Measured(nodes, {"n3": "no answer"})).service_health["a"]
    assert (told.response_time_ms, told.last_check) == (9.0, "2025-07-15T14:29:55Z")
    assert told.figures == {"queue_size": 5}
    assert told.detail == "n3: no answer"


def test_what_is_not_up_is_not_missed() -> None:
    down = seeing(stack(spec("a")), "a", Observed(1, Phase.EXITED, NOW), run())
    told = health_answer(down, NOW, Measured({}, {"n1": "no answer"})).service_health["a"]
    assert (told.detail, told.response_time_ms, told.last_check) == ("", None, "2025-07-15T14:30:00Z")


def test_health_tells_uptime_and_score_of_each_service() -> None:
    snapshot = seeing(stack(spec("a", "n1", "n2"), spec("b")), "a", ready(NOW - 60), run(), CheckStatus.WARNING)
    told = health_answer(snapshot, NOW)
    a, b = told.service_health["a"], told.service_health["b"]
    assert (a.status, a.health_score, a.uptime_seconds) == (Status.DEGRADED, 87.5, 3598.0)
    assert (b.status, b.health_score, b.uptime_seconds) == (Status.HEALTHY, 100.0, 3598.0)
    assert (a.response_time_ms, a.last_check) == (None, "2025-07-15T14:30:00Z")
    assert told.health_summary.overall_status is Status.DEGRADED


def test_of_a_service_whose_agent_is_gone_nothing_is_claimed() -> None:
    snapshot = replace(stack(spec("a")), agents=frozenset())
    told = health_answer(snapshot, NOW).service_health["a"]
    assert told.status is Status.UNKNOWN
    assert (told.last_check, told.uptime_seconds, told.health_score) == (None, None, None)


def test_the_diagnosis_sets_the_witnesses_side_by_side() -> None:
    snapshot = replace(
        seeing(stack(spec("a")), "a", ready(), run(3), CheckStatus.CRITICAL), holds=(Hold("stack", "demo", by="eve"),)
    )
    finding = CheckFinding("node", "a", "http", "critical", "connection refused")
    told = health_debug_answer(snapshot, NOW, checks=[finding], led=True).health_debug
    (instance,) = told.instances
    assert (instance.wanted_generation, instance.observed_generation) == (3, 1)
    assert (instance.phase, instance.check_status, instance.status) == ("ready", "critical", Status.HELD)
    assert instance.held_by == "eve"
    assert told.checks_not_passing == (finding,)


def test_the_diagnosis_of_what_was_never_started_knows_nothing() -> None:
    (told,) = health_debug_answer(stack(spec("a"), serving=False), NOW, checks=(), led=True).health_debug.instances
    assert (told.wanted_run, told.phase, told.starts, told.pid) == (None, None, None, None)


def test_the_graph_is_drawn_from_what_is_needed_to_who_needs_it() -> None:
    snapshot = stack(
        spec("web"), spec("db", critical=False), edges=(Edge("web", "db", Condition.STARTED, min_instances=1),)
    )
    graph = dependency_answer(snapshot).dependency_graph
    assert [(n.id, n.type, n.critical) for n in graph.nodes] == [
        ("db", "type-of-db", False),
        ("web", "type-of-web", True),
    ]
    assert graph.edges == (
        {
            "from": "db",
            "to": "web",
            "type": "dependency",
            "condition": "started",
            "strength": "hard",
            "min_instances": 1,
            "on_recovery": "notify",
            "met": True,
        },
    )
    assert (graph.startup_order, graph.shutdown_order) == ((1, 2), (2, 1))


def test_the_critical_path_goes_by_the_time_that_starts_took() -> None:
    edges = (Edge("b", "a"), Edge("c", "b"), Edge("c", "slow"))
    unknown = stack(spec("a"), spec("b"), spec("c"), spec("slow"), edges=edges, serving=False)
    graph = dependency_answer(unknown).dependency_graph
    assert (graph.critical_path, graph.critical_path_seconds) == (("a", "b", "c"), None)
    slow = Observed(1, Phase.READY, since=NOW, started_at=NOW - 30, ready_at=NOW)
    known = seeing(stack(spec("a"), spec("b"), spec("c"), spec("slow"), edges=edges), "slow", slow, run())
    graph = dependency_answer(known).dependency_graph
    assert (graph.critical_path, graph.critical_path_seconds) == (("slow", "c"), 32.0)


def test_a_rejected_edge_is_told_with_the_graph() -> None:
    snapshot = stack(spec("a"), spec("b"), edges=(Edge("a", "b"), Edge("b", "a")))
    (rejected,) = dependency_answer(snapshot).dependency_graph.rejected_edges
    assert (rejected.place, rejected.message) == ("b → a", "makes a cycle: b → a → b")


def test_what_a_service_waits_for_is_told() -> None:
    snapshot = stack(spec("web"), spec("db"), spec("store"), edges=(Edge("web", "db"), Edge("db", "store")))
    broken = seeing(snapshot, "db", Observed(1, Phase.EXITED, NOW), run())
    told = {s.service: s for s in dependency_debug_answer(broken, NOW, led=True).dependency_debug.services}
    assert told["web"].waits_for == ("db to be healthy",)
    assert told["web"].needs == ("store", "db")
    assert told["store"].needed_by == ("db", "web")
    assert told["db"].waits_for == ()


def test_figures_come_from_operations_and_observations() -> None:
    start = step("a", StepAction.START, 0, 5)
    operations = (
        operation(Kind.STARTUP, start, started_at=NOW - 220, ended_at=NOW),
        operation(Kind.STARTUP, start, started_at=NOW - 280, ended_at=NOW),
        operation(Kind.STARTUP, step("a", StepAction.START, None, 0), started_at=NOW - 1, ended_at=NOW),
        operation(Kind.STARTUP, start, state=OperationState.FAILED),
        operation(Kind.STARTUP, start, state=OperationState.CANCELLED),
        operation(Kind.STARTUP, start, targets=("a",), started_at=NOW - 1),
        operation(Kind.RECOVER),
        operation(Kind.RECOVER, state=OperationState.FAILED),
        operation(Kind.RECOVER, state=OperationState.RUNNING),
    )
    told = metrics_answer(stack(spec("a")), NOW, operations).orchestration_metrics
    performance = told.startup_performance
    assert performance.average_startup_time_seconds == 250.0
    assert (performance.fastest_startup_seconds, performance.slowest_startup_seconds) == (220.0, 280.0)
    assert performance.startup_success_rate == 75.0


def test_the_figures_of_the_sites_document_come_from_the_accounts() -> None:
    account = Account(Standing.UP, NOW - 400, up_seconds=86_000, planned_seconds=300, unplanned_seconds=420)
    accounts = {STACK: ServiceStats(STACK, {STACK: account})}
    uptime = metrics_answer(replace(stack(), stats=accounts), NOW, ()).orchestration_metrics.system_uptime
    assert (uptime.total_uptime_seconds, uptime.availability_percentage) == (86_400.0, 99.174)
    assert (uptime.planned_downtime_seconds, uptime.unplanned_downtime_seconds) == (300.0, 420.0)


def _stats(
    name: str, up: float, down: float, *, failures: int = 0, restarts: int = 0, recovered: int = 0, lost: int = 0
) -> ServiceStats:
    account = Account(Standing.UP, NOW, up, 1e6, down, failures=failures, restarts=restarts)
    return ServiceStats(name, {"n1": account}, recovered, lost)


def test_the_reliability_of_services_is_that_of_their_wanted_time() -> None:
    snapshot = stack(spec("a"), spec("b"), spec("c"), spec("job", oneshot=True))
    stats = (
        _stats("a", 99, 1, restarts=3, recovered=2),
        _stats("b", 90, 10, restarts=1, recovered=1, lost=4),
        _stats("c", 198, 2),
        _stats("job", 0, 50, restarts=5),
        _stats("gone", 0, 100, restarts=9, lost=9),
    )
    snapshot = replace(snapshot, stats={one.service: one for one in stats})
    told = metrics_answer(snapshot, NOW, ()).orchestration_metrics.service_reliability
    assert told.average_uptime_percentage == 96.0
    assert (told.most_reliable_service, told.least_reliable_service) == ("c", "b")
    assert (told.total_service_restarts, told.successful_recoveries, told.failed_recoveries) == (9, 3, 4)


def test_of_equally_reliable_services_failures_and_time_decide() -> None:
    stats = (_stats("a", 50, 0), _stats("b", 60, 0), _stats("c", 70, 0, failures=1))
    snapshot = replace(stack(spec("a"), spec("b"), spec("c")), stats={one.service: one for one in stats})
    told = metrics_answer(snapshot, NOW, ()).orchestration_metrics.service_reliability
    assert (told.most_reliable_service, told.least_reliable_service) == ("b", "c")


def test_the_checks_of_all_node_agents_are_added_up() -> None:
    nodes = {
        "n1": NodeMeasurements("n1", BEGAN, CheckCounts(2000, 45, 1955, 40.0), {}),
        "n2": NodeMeasurements("n2", BEGAN, CheckCounts(880, 0, 880, 30.875), {}),
    }
    told = metrics_answer(stack(), NOW, (), Measured(nodes, {"n3": "silent"})).orchestration_metrics.health_monitoring
    assert (told.total_health_checks, told.failed_health_checks) == (2880, 45)
    assert (told.health_check_success_rate, told.average_health_check_time_ms) == (98.44, 25.0)


def test_without_an_answer_of_any_agent_no_checks_are_told() -> None:
    told = metrics_answer(stack(), NOW, (), Measured({}, {"n1": "silent"})).orchestration_metrics.health_monitoring
    assert told.total_health_checks is None


def test_figures_that_nobody_keeps_are_none() -> None:
    told = metrics_answer(stack(spec("a")), NOW, ()).orchestration_metrics
    assert told.startup_performance.average_startup_time_seconds is None
    assert told.startup_performance.startup_success_rate is None
    assert told.system_uptime.availability_percentage is None
    assert told.health_monitoring.total_health_checks is None
    assert told.service_reliability.most_reliable_service is None


def test_a_whole_startup_is_one_that_ended() -> None:
    assert is_whole_startup(operation(Kind.STARTUP))
    assert not is_whole_startup(operation(Kind.STARTUP, state=OperationState.RUNNING, ended_at=None))


def test_an_operation_is_told_with_its_steps_and_a_list_without() -> None:
    one = operation(Kind.STARTUP, step("a", StepAction.START, 0, 5), waits_for="other", requested_by="eve")
    told = operation_answer(one)
    assert told.steps is not None
    assert [(s.service, s.action, s.time_seconds) for s in told.steps] == [("a", "start", 5.0)]
    assert (told.requested_at, told.total_time_seconds, told.waits_for) == ("2025-07-15T14:28:20Z", 100.0, "other")
    assert operations_answer((one,)).operations[0].steps is None


def test_an_instance_is_wanted_by_order_or_by_intent() -> None:
    skipped = replace(run(), run=False)
    snapshot = seeing(stack(spec("a")), "a", None, skipped)
    assert services_answer(snapshot, NOW).services[0].instances[0].wanted
    assert Instance("a", "n1") in snapshot.desired
