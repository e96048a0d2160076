"""A few fixed scenes, each disturbed at every single await point of the process that matters in it.

Random stories hit an await point by chance. Here each one is hit: the scene is told once undisturbed, to see how many
steps the process takes from its cue until all is quiet, and then once for each of these steps and each disturbance.
Everything follows from the scene up to the moment of the disturbance, so no step is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from simulation import tell
from story import DEFAULTS, Happening, Layout, Plan, Story

from citadel_consul.core.model import (
    Check,
    CheckKind,
    Edge,
    OnRecovery,
    ProcessBackend,
    RecoveryPolicy,
    ServiceSpec,
)

DISTURBANCES = {
    "leader": {"kill-at": 0.0, "pause-at": 3.0, "cut-at": 4.0, "no-leader-at": 1.0},
    "standby": {"kill-at": 0.0, "pause-at": 3.0, "cut-at": 4.0, "no-leader-at": 1.0},
    "agent-n1": {"kill-at": 0.0, "pause-at": 6.0, "cut-at": 4.0, "no-leader-at": 1.0},
}
"""By the process that is disturbed: what is done to it, and for how many seconds. A pause outlasts the lock's TTL."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What happens, from its ``cue`` (seconds from the start) on for ``lasts`` seconds, and to whom it matters."""

    name: str
    happenings: tuple[Happening, ...]
    cue: float
    lasts: float
    targets: tuple[str, ...]


UP = Happening(0.5, "startup", "all")
CUE = 1.5
SCENES = (
    Scene("startup", (replace(UP, at=CUE),), CUE, 0.5, ("leader", "agent-n1")),
    Scene("shutdown", (UP, Happening(CUE, "shutdown", "all")), CUE, 0.5, ("leader", "agent-n1")),
    Scene("recovery", (UP, Happening(CUE, "die", "s0@n1")), CUE, 0.5, ("leader", "agent-n1")),
    Scene("cascade", (UP, Happening(CUE, "restart+cascade", "s0")), CUE, 0.5, ("leader", "agent-n1")),
    Scene("roll", (UP, Happening(CUE, "restart+rolling", "s1")), CUE, 4.0, ("leader", "agent-n1")),
    Scene(
        "failover",
        (UP, Happening(CUE, "restart+cascade", "s0"), Happening(CUE + 0.012, "kill", "leader")),
        CUE,
        0.6,
        ("standby",),
    ),
)


def names(stride: int) -> Iterator[str]:
    """The names of all disturbed scenes, or of those at every ``stride``-th await point."""
    for scene in SCENES:
        for target in scene.targets:
            for step in range(1, _await_points(scene, target) + 1, stride):
                yield from (f"{scene.name}:{target}:{what}:{step}" for what in DISTURBANCES[target])


def story_named(name: str) -> Story:
    """The story of a disturbed scene. Raises ``KeyError`` or ``ValueError`` if there is none of that name."""
    scene_name, target, what, step = name.split(":")
    scene = {scene.name: scene for scene in SCENES}[scene_name]
    seconds = DISTURBANCES[target][what]
    return _story(scene, Happening(scene.cue, what, target, seconds, int(step)))


def _await_points(scene: Scene, target: str) -> int:
    """How many steps ``target`` takes while the undisturbed scene lasts."""
    marks = [Happening(scene.cue + after, "mark", target) for after in (0.0, scene.lasts)]
    first, last = tell(_story(scene, *marks)).marks
    return last - first


def _story(scene: Scene, *more: Happening) -> Story:
    """A scene with ``more``, which comes before everything else of its moment."""
    wishes = [h for h in scene.happenings if h.target == "all"]
    last = replace(wishes[-1], at=scene.cue + scene.lasts + 1.0)
    happenings = sorted([*more, *scene.happenings, last], key=lambda happening: happening.at)
    return Story(1, _plan(), tuple(happenings))


def _plan() -> Plan:
    """Three services on two nodes: a chain with two in the middle, of which the last can do with one."""
    services = tuple(_service(name, nodes) for name, nodes in (("s0", ("n1",)), ("s1", ("n1", "n2")), ("s2", ("n2",))))
    edges = (
        Edge("s1", "s0", on_recovery=OnRecovery.RESTART),
        Edge("s2", "s1", min_instances=1, on_recovery=OnRecovery.NOTIFY),
    )
    boots = dict.fromkeys(("s0", "s1", "s2"), 0.02)
    defaults = replace(DEFAULTS, drain_timeout_seconds=1.0)
    return Plan(("n1", "n2"), 2, (Layout(services, edges),), boots, defaults=defaults)


def _service(name: str, nodes: tuple[str, ...]) -> ServiceSpec:
    return ServiceSpec(
        name=name,
        type="test",
        nodes=nodes,
        backend=ProcessBackend(("true",)),
        checks=(Check(name="http", kind=CheckKind.HTTP, target=name),),
        recovery=RecoveryPolicy(attempts=50, delay_seconds=1.0, max_delay_seconds=4.0, total_seconds=600.0),
        start_timeout_seconds=20.0,
        stop_timeout_seconds=1.0,
    )
