"""Evidence of a drill in which everything went well, for tests to plant faults in."""

from __future__ import annotations

from dataclasses import dataclass, field

from citadel_consul.cli.drilling.data import Kept
from citadel_consul.cli.drilling.discovery import Discovered, judge_discovery
from citadel_consul.cli.drilling.monitoring import Degradation, Monitored, judge_monitoring
from citadel_consul.cli.drilling.recovery import Recovered, judge_recovery
from citadel_consul.cli.drilling.sequence import Happening, Layout
from citadel_consul.cli.drilling.shutdown import Stopped, judge_shutdown
from citadel_consul.cli.drilling.startup import Started, judge_startup
from citadel_consul.cli.drilling.verdict import Phase, Report
from citadel_consul.core.graph import build_graph
from citadel_consul.core.health import Status
from citadel_consul.core.model import Check, CheckKind, Edge, Instance, OnRecovery, ProcessBackend, ServiceSpec
from citadel_consul.core.operation import Kind, Operation, OperationState, Step, StepAction, StepState

EDGES = (
    Edge("api", "db", on_recovery=OnRecovery.RESTART),
    Edge("api", "cache"),
    Edge("report", "db", on_recovery=OnRecovery.NOTIFY),
    Edge("web", "api"),
)
CHECK = Check("http", CheckKind.HTTP, "http://127.0.0.1:1/health")
TYPES = {"db": "database", "cache": "cache", "api": "api", "report": "job", "web": "gateway"}
SPECS = {
    name: ServiceSpec(name, kind, ("n1",), ProcessBackend(("x",)), critical=name != "report", checks=(CHECK,))
    for name, kind in TYPES.items()
}
GRAPH, _ = build_graph(SPECS, EDGES)
ORDER = tuple(Instance(name, "n1") for name in GRAPH.in_start_order(GRAPH.services))
LAYOUT = Layout(SPECS, EDGES)
DB, CACHE, API, REPORT, WEB = (Instance(name, "n1") for name in TYPES)


def starts(*order: Instance) -> tuple[Happening, ...]:
    """Started and ready, one after the other."""
    found = []
    for place, instance in enumerate(order or ORDER):
        found.append(Happening(100 + 10 * place, 1000.0 + place, "started", instance))
        found.append(Happening(105 + 10 * place, 1000.5 + place, "ready", instance))
    return tuple(found)


def stops(*order: Instance) -> tuple[Happening, ...]:
    """Told to stop and stopped, one after the other."""
    found = []
    for place, instance in enumerate(order or tuple(reversed(ORDER))):
        found.append(Happening(500 + 10 * place, 2000.0 + place, "stopping", instance))
        found.append(Happening(505 + 10 * place, 2000.5 + place, "stopped", instance))
    return tuple(found)


def operation(kind: Kind, *steps: Step, state: OperationState = OperationState.SUCCEEDED) -> Operation:
    return Operation("op", kind, ("all",), state=state, started_at=1.0, ended_at=2.0, steps=steps)


def step(instance: Instance, action: StepAction, state: StepState = StepState.SUCCEEDED, detail: str = "") -> Step:
    return Step(instance.service, instance.node, action, state, detail=detail)


@dataclass
class Evidence:
    """All phases; :meth:`report` judges them."""

    discovered: Discovered = field(
        default_factory=lambda: Discovered(
            expected=ORDER,
            registered=dict.fromkeys(ORDER, "passing"),
            graph=GRAPH,
            edges=EDGES,
            probes={f"{i.service} http://127.0.0.1:1/health": None for i in ORDER},
        )
    )
    started: Started = field(
        default_factory=lambda: Started(
            operation=operation(Kind.STARTUP, *(step(i, StepAction.START) for i in ORDER)),
            seconds=2.5,
            history=starts(),
            layout=LAYOUT,
            statuses=dict.fromkeys(TYPES, Status.HEALTHY),
        )
    )
    target_seconds: float = 300.0
    monitored: Monitored = field(
        default_factory=lambda: Monitored(
            wanted=dict.fromkeys(ORDER, 1),
            checks=dict.fromkeys(ORDER, ("passing",)),
            reported=dict.fromkeys(TYPES, Status.HEALTHY),
            witnessed=dict.fromkeys(TYPES, Status.HEALTHY),
            degradation=Degradation(REPORT, 0.012, 0.01),
        )
    )
    recovered: Recovered | None = field(
        default_factory=lambda: Recovered(
            victim=DB,
            pid=4711,
            killed=True,
            seen_dead_seconds=0.004,
            operation=operation(
                Kind.RECOVER,
                step(DB, StepAction.STOP),
                step(DB, StepAction.START),
                step(API, StepAction.STOP),
                step(API, StepAction.START),
                step(REPORT, StepAction.NOTIFY),
            ),
            triggered_seconds=0.018,
            restored_seconds=1.25,
            edges=tuple(edge for edge in EDGES if edge.dependency == "db"),
            dependents=(API, REPORT),
        )
    )
    stopped: Stopped = field(
        default_factory=lambda: Stopped(
            operation=operation(Kind.SHUTDOWN, *(step(i, StepAction.STOP) for i in reversed(ORDER))),
            seconds=0.8,
            history=stops(),
            layout=LAYOUT,
            up=frozenset(ORDER),
            watched=len(ORDER),
            kept=Kept(written=2),
        )
    )

    def report(self) -> Report:
        lines = {
            1: judge_discovery(self.discovered),
            2: judge_startup(self.started, self.target_seconds),
            3: judge_monitoring(self.monitored),
            4: judge_recovery(self.recovered),
            5: judge_shutdown(self.stopped),
        }
        return Report("shop", 0.0, tuple(Phase(number, found, 1.0) for number, found in lines.items()))
