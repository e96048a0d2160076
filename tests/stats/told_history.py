"""The figures of a real run, worked out again from its history: the node's chronicle and the operations' steps.

Nothing of citadel's own accounting is used. A service is up from each *ready* of the chronicle to its *exited*, or to
the order of a stop; what it is in between is planned if a person's operation had it in hand, and unplanned otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from citadel_consul.agent.chronicle import Entry
from citadel_consul.core.operation import Kind, Operation, StepAction

UP, PLANNED, UNPLANNED = "up", "planned", "unplanned"
BY_ORDER = (Kind.RESTART, Kind.SHUTDOWN)


@dataclass(frozen=True)
class Turning:
    """A moment at which a service came to be something else."""

    at: float
    service: str
    word: str


def turnings(chronicle: Iterable[Entry], operations: Iterable[Operation]) -> list[Turning]:
    """All turnings of a run, in order."""
    found = [Turning(e.at, e.service, UP) for e in chronicle if e.what == "ready"]
    found += [Turning(e.at, e.service, UNPLANNED) for e in chronicle if e.what in ("exited", "failed")]
    for operation in operations:
        word = PLANNED if operation.kind in BY_ORDER else UNPLANNED
        for step in operation.steps:
            if step.action is StepAction.STOP and step.generation is not None and step.began_at is not None:
                found.append(Turning(step.began_at, step.service, word))
    return sorted(found, key=lambda one: one.at)


def seconds(turned: Iterable[Turning], until: float) -> Mapping[str, Mapping[str, float]]:
    """The seconds of each service in each state, from its first turning on."""
    of: dict[str, list[Turning]] = defaultdict(list)
    for one in turned:
        of[one.service].append(one)
    sums: dict[str, dict[str, float]] = {}
    for service, own in of.items():
        sums[service] = dict.fromkeys((UP, PLANNED, UNPLANNED), 0.0)
        for one, following in pairwise([*own, Turning(until, service, "")]):
            sums[service][one.word] += following.at - one.at
    return sums


def stack_seconds(turned: Iterable[Turning], critical: Iterable[str], until: float) -> Mapping[str, float]:
    """The seconds of the stack in each state, from the moment at which all of ``critical`` were up first."""
    now = dict.fromkeys(critical, PLANNED)
    sums, began = dict.fromkeys((UP, PLANNED, UNPLANNED), 0.0), False
    moments = [one for one in turned if one.service in now]
    for one, following in pairwise([*moments, Turning(until, "", "")]):
        now[one.service] = one.word
        word = UNPLANNED if UNPLANNED in now.values() else PLANNED if PLANNED in now.values() else UP
        began = began or word == UP
        if began:
            sums[word] += following.at - one.at
    return sums


def restarts(chronicle: Iterable[Entry]) -> int:
    """The starts of every service after its first."""
    started: dict[str, int] = defaultdict(int)
    for entry in chronicle:
        started[entry.service] += entry.what == "started"
    return sum(count - 1 for count in started.values())
