"""Stories: a site, what an operator asks for, and what goes wrong meanwhile, all drawn from one seed.

There are four kinds. In a *plain* one, recovery has budget enough for whatever happens. In a *tight* one it has not,
and services break for good. In a *mass* one most of the stack dies at once, in a *flapping* one a service comes and
goes. In these the operator asks once more when all is over, since citadel may rightly have given up.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from citadel_consul.backends.fake import Behaviour
from citadel_consul.core.model import (
    Check,
    CheckKind,
    Condition,
    Edge,
    OnRecovery,
    ProcessBackend,
    RecoveryPolicy,
    ServiceSpec,
    Strength,
)
from citadel_consul.core.snapshot import Defaults

TROUBLE_SECONDS = 25.0
SKEW_SECONDS = 1.5
DEFAULTS = Defaults(
    recovery_delay_seconds=2.0,
    startup_timeout_seconds=60.0,
    shutdown_timeout_seconds=60.0,
    drain_timeout_seconds=3.0,
    flap_limit=3,
)


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that is done to the site: when (seconds from the start), what, to whom, for how long.

    ``step`` is after how many steps of the target it comes, ``amount`` how much it is, where that means anything.
    """

    at: float
    what: str
    target: str = ""
    seconds: float = 0.0
    step: int = 0
    amount: float = 0.0

    def __str__(self) -> str:
        span = f" for {self.seconds:.2f} s" if self.seconds else ""
        place = f" at its step {self.step}" if self.step else ""
        much = f" by {self.amount:+.2f}" if self.amount else ""
        return f"{self.what} {self.target}{place}{much}{span}"


@dataclass(frozen=True, slots=True)
class Layout:
    """What the stack file says at one time."""

    services: tuple[ServiceSpec, ...]
    edges: tuple[Edge, ...]


@dataclass(slots=True)
class Plan:
    """The site. ``layouts`` are what the stack file says, one after the other; ``clocks`` how wrong clocks are.

    On ``signalling`` nodes the agent signals its reports, as it would in a stack of many nodes.
    """

    nodes: tuple[str, ...]
    orchestrators: int
    layouts: tuple[Layout, ...]
    boot_seconds: dict[str, float] = field(default_factory=dict)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    clocks: dict[str, float] = field(default_factory=dict)
    defaults: Defaults = DEFAULTS
    signalling: frozenset[str] = frozenset()

    @property
    def services(self) -> tuple[ServiceSpec, ...]:
        return self.layouts[-1].services


@dataclass(slots=True)
class Story:
    """What a seed came up with: the site and all that happens to it."""

    seed: int
    plan: Plan
    happenings: tuple[Happening, ...]


def story_of(seed: int) -> Story:
    """The story of a seed."""
    draw = random.Random(seed)
    kind = draw.choice(("plain",) * 10 + ("tight",) * 6 + ("mass",) * 2 + ("flapping",) * 2)
    nodes = tuple(f"n{i}" for i in range(1, draw.randint(2, 3) + 1))
    plan = _plan(draw, kind, nodes)
    plan.signalling = (frozenset(), frozenset(nodes), frozenset(nodes[:1]))[seed % 3]
    faults = list(_faults(draw, kind, plan))
    happenings = [*faults, *_holds(draw, plan, faults), *_applications(draw, plan), *_wishes(draw, plan)]
    over = max((h.at + h.seconds for h in happenings), default=0.0)
    last = TROUBLE_SECONDS + 0.1 if kind == "plain" else max(over, TROUBLE_SECONDS) + 3.0
    happenings.append(Happening(last, draw.choice(("startup", "startup", "startup", "shutdown")), "all"))
    return Story(seed, plan, tuple(sorted(happenings, key=lambda happening: happening.at)))


# --- the site ------------------------------------------------------------------------------------------------------


def _plan(draw: random.Random, kind: str, nodes: tuple[str, ...]) -> Plan:
    names = [f"s{i}" for i in range(draw.randint(5, 7) if kind == "mass" else draw.randint(2, 6))]
    services = []
    for name in names:
        on = tuple(draw.sample(nodes, draw.choice((1, 1, 1, 2))))
        services.append(_service(draw, kind, name, on))
    counts = {spec.name: len(spec.nodes) for spec in services}
    edges = tuple(edge for place, name in enumerate(names) for edge in _edges_of(draw, name, names[:place], counts))
    wrong = draw.choice((0.0, 0.0, SKEW_SECONDS, SKEW_SECONDS))
    return Plan(
        nodes,
        draw.randint(2, len(nodes)),
        _layouts(draw, Layout(tuple(services), edges)),
        {name: draw.choice((0.0, 0.02, 0.2, 1.0)) for name in names},
        {name: _behaviour(draw) for name in names},
        {node: draw.uniform(-wrong, wrong) for node in nodes},
        replace(DEFAULTS, brake_window_seconds=draw.choice((10.0, 30.0, 60.0))),
    )


def _edges_of(draw: random.Random, name: str, below: list[str], counts: dict[str, int]) -> Iterator[Edge]:
    for dependency in draw.sample(below, min(len(below), draw.choice((0, 1, 1, 2)))):
        yield Edge(
            name,
            dependency,
            condition=draw.choice((Condition.HEALTHY, Condition.HEALTHY, Condition.HEALTHY, Condition.STARTED)),
            strength=draw.choice((Strength.HARD, Strength.HARD, Strength.HARD, Strength.SOFT, Strength.MILESTONE)),
            min_instances=1 if counts[dependency] > 1 and draw.random() < 0.5 else None,
            on_recovery=draw.choice(tuple(OnRecovery)),
        )


def _service(draw: random.Random, kind: str, name: str, nodes: tuple[str, ...]) -> ServiceSpec:
    policy = RecoveryPolicy(attempts=50, delay_seconds=1.0, max_delay_seconds=4.0, total_seconds=600.0)
    if kind == "tight":
        policy = replace(policy, attempts=draw.randint(1, 3), delay_seconds=0.5, max_delay_seconds=2.0)
    if kind == "flapping":
        policy = replace(policy, attempts=5, delay_seconds=30.0, max_delay_seconds=60.0)
    return ServiceSpec(
        name=name,
        type="test",
        nodes=nodes,
        backend=ProcessBackend(("true",), reload_signal="SIGHUP"),
        checks=(
            Check(
                name="http",
                kind=CheckKind.HTTP,
                target=name,
                interval_seconds=1.0 if kind == "flapping" else 10.0,
                timeout_seconds=1.0 if kind == "flapping" else 5.0,
            ),
        ),
        recovery=policy,
        start_timeout_seconds=20.0,
        stop_timeout_seconds=draw.choice((1.0, 5.0)),
        drain_timeout_seconds=draw.choice((None, None, None, 2.0)),
    )


def _behaviour(draw: random.Random) -> Behaviour:
    return Behaviour(stop_seconds=draw.choice((0.0, 0.0, 0.05, 0.5)), ignores_stop=draw.random() < 0.05)


def _layouts(draw: random.Random, last: Layout) -> tuple[Layout, ...]:
    """What comes before the last: a service less, some edges less, some services as they were."""
    if draw.random() < 0.75:
        return (last,)
    missing = {last.services[-1].name} if draw.random() < 0.4 and len(last.services) > 2 else set()
    services = tuple(
        replace(spec, stop_timeout_seconds=2.0) if draw.random() < 0.3 else spec
        for spec in last.services
        if spec.name not in missing
    )
    edges = tuple(edge for edge in last.edges if edge.service not in missing and draw.random() < 0.6)
    return (Layout(services, edges), last) if draw.random() < 0.5 or missing else (last, Layout(last.services, edges))


# --- what an operator does -----------------------------------------------------------------------------------------


def _wishes(draw: random.Random, plan: Plan) -> Iterator[Happening]:
    """An operator starts the stack and changes parts of it; the last wish of the story is not among these."""
    yield Happening(draw.uniform(0.5, 3.0), draw.choice(("startup", "startup", "startup", "startup+rollback")), "all")
    for _ in range(draw.randint(0, 3)):
        service = draw.choice(plan.services)
        at, roll = draw.uniform(3.0, TROUBLE_SECONDS), draw.choice(("restart+rolling", "restart+rolling+force"))
        kind = draw.choice(
            ("restart", "restart+cascade", "shutdown+cascade", "startup", "recover", "drain", "drain+force", roll)
        )
        whole = draw.choice((True, False)) or not kind.startswith(("restart", "drain"))
        yield Happening(at, kind, service.name if whole else str(draw.choice(service.instances)))
        if draw.random() < 0.2:
            yield Happening(min(at + draw.uniform(0.0, 2.0), TROUBLE_SECONDS), "cancel")
    if draw.random() < 0.1:
        yield Happening(draw.uniform(3.0, TROUBLE_SECONDS), "hand-over")


def _holds(draw: random.Random, plan: Plan, faults: list[Happening]) -> Iterator[Happening]:
    """Holds that run out by themselves or are lifted; what stands in the end is lifted then.

    Half of them are set when something is being recovered: of that, what has not begun may not begin then.
    """
    deaths = [fault.at for fault in faults if fault.what in ("die", "broken") and fault.at < TROUBLE_SECONDS - 3]
    if draw.random() < 0.6:
        return
    for _ in range(draw.randint(1, 2)):
        scope = draw.choice(("service", "service", "node", "stack"))
        name = {"service": draw.choice(plan.services).name, "node": draw.choice(plan.nodes), "stack": ""}[scope]
        at = draw.uniform(3.0, TROUBLE_SECONDS - 3)
        if deaths and draw.random() < 0.5:
            at = draw.choice(deaths) + draw.choice((draw.uniform(0.0, 0.05), draw.uniform(0.0, 1.5)))
        seconds = draw.choice((0.0, draw.uniform(1.0, 15.0)))
        yield Happening(at, "hold", f"{scope}/{name}".rstrip("/"), seconds)
        if not seconds and draw.random() < 0.7:
            yield Happening(at + draw.uniform(0.5, 12.0), "lift", f"{scope}/{name}".rstrip("/"))


def _applications(draw: random.Random, plan: Plan) -> Iterator[Happening]:
    for number in range(1, len(plan.layouts)):
        yield Happening(draw.uniform(3.0, TROUBLE_SECONDS - 2), "apply", str(number))


# --- what goes wrong -----------------------------------------------------------------------------------------------

FAULTS = {
    "kill": 2,
    "pause": 2,
    "kill-at": 2,
    "pause-at": 2,
    "no-leader-at": 2,
    "cut-at": 1,
    "cut": 2,
    "partition": 1,
    "no-leader": 2,
    "lossy": 2,
    "restart-consul": 1,
    "forget": 1,
    "slow": 2,
    "reboot": 1,
    "clock": 1,
    "die": 3,
    "ill": 2,
    "broken": 1,
}
"""What can go wrong, and how often in proportion."""
SPANS = {
    "pause": (0.05, 8.0),
    "pause-at": (0.05, 8.0),
    "no-leader-at": (0.2, 6.0),
    "cut-at": (0.5, 14.0),
    "cut": (0.5, 14.0),
    "partition": (0.5, 14.0),
    "no-leader": (0.2, 12.0),
    "lossy": (1.0, 10.0),
    "restart-consul": (0.1, 4.0),
    "forget": (0.1, 4.0),
    "slow": (0.5, 6.0),
    "reboot": (0.5, 5.0),
    "ill": (5.0, 15.0),
    "broken": (0.5, 10.0),
}
"""How long it lasts, in seconds."""
_OF_PROCESSES = frozenset({"kill", "pause", "kill-at", "pause-at", "no-leader-at", "cut-at"})
_OF_NODES = frozenset({"cut", "lossy", "restart-consul", "forget", "slow", "reboot", "clock"})
_OF_INSTANCES = frozenset({"die", "ill"})


def _faults(draw: random.Random, kind: str, plan: Plan) -> Iterator[Happening]:
    for _ in range(draw.randint(1, 6)):
        yield _fault(draw, plan, draw.choices(tuple(FAULTS), tuple(FAULTS.values()))[0])
    if kind == "tight":
        for _ in range(draw.randint(1, 2)):
            at = draw.uniform(3.0, 12.0)
            yield Happening(at, "broken", draw.choice(plan.services).name, draw.uniform(8.0, 30.0))
    elif kind == "mass":
        yield from _mass_death(draw, plan)
    elif kind == "flapping":
        yield from _flapping(draw, plan)
    elif draw.random() < 0.3:  # after the last wish, so that citadel has to mend it by itself
        yield Happening(TROUBLE_SECONDS + draw.uniform(1.0, 8.0), "die", _anything(draw, plan))


def _fault(draw: random.Random, plan: Plan, what: str) -> Happening:
    at = draw.uniform(0.5, TROUBLE_SECONDS - 4)
    first, last = SPANS.get(what, (0.0, 0.0))
    seconds = draw.uniform(first, last)
    if what in _OF_PROCESSES:
        step = draw.randint(1, 150) if what.endswith("-at") else 0
        return Happening(at, what, _role(draw, plan), seconds, step)
    if what in _OF_INSTANCES:
        return Happening(at, what, _anything(draw, plan), seconds)
    if what == "partition":
        return Happening(at, what, ",".join(draw.sample(plan.nodes, len(plan.nodes) - 1)), seconds)
    if what == "broken":
        return Happening(at, what, draw.choice(plan.services).name, seconds)
    amount = draw.uniform(-2 * SKEW_SECONDS, 2 * SKEW_SECONDS) if what == "clock" else 0.0
    return Happening(at, what, draw.choice(plan.nodes) if what in _OF_NODES else "", seconds, amount=amount)


def _anything(draw: random.Random, plan: Plan) -> str:
    return str(draw.choice(draw.choice(plan.services).instances))


def _role(draw: random.Random, plan: Plan) -> str:
    roles = [f"agent-{node}" for node in plan.nodes]
    roles += [f"orchestrator-{node}" for node in plan.nodes[: plan.orchestrators]] * 2
    return draw.choice((*roles, "leader", "leader", "leader"))


def _mass_death(draw: random.Random, plan: Plan) -> Iterator[Happening]:
    """Most services die within moments, once or twice."""
    for _ in range(draw.randint(1, 2)):
        at, within = draw.uniform(6.0, 16.0), draw.choice((0.05, 0.4, 4.0))
        for spec in draw.sample(plan.services, draw.randint(len(plan.services) // 2, len(plan.services))):
            for instance in spec.instances:
                yield Happening(at + draw.uniform(0.0, within), "die", str(instance))


def _flapping(draw: random.Random, plan: Plan) -> Iterator[Happening]:
    """A service that needs nothing fails its checks and passes them again, several times, and then fails for longer."""
    bound = {edge.service for edge in plan.layouts[-1].edges}
    instance = draw.choice(draw.choice([spec for spec in plan.services if spec.name not in bound]).instances)
    at = draw.uniform(6.0, 9.0)
    for _ in range(draw.randint(5, 9)):
        seconds = draw.uniform(2.5, 3.5)
        yield Happening(at, "ill", str(instance), seconds)
        at += seconds + draw.uniform(1.5, 2.5)
    yield Happening(at, "ill", str(instance), draw.uniform(10.0, 25.0))
