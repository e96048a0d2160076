"""Which wanted instances fail, and whose fault that is.

Three witnesses are heard. The node agent *reports* ends and failed starts: facts. Consul's checks *claim* that a
service is critical. The node agent *confirms* the claim by running the same checks itself for longer than one interval,
or *contradicts* it. A claim alone is a suspicion: reason to wait, never to restart anything. So an agent of Consul that
was restarted, a server without leader, a stale index or one slow interval restart nothing.

Nothing is concluded about an instance whose node agent is gone: there is nobody to tell, nor anybody to act.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from citadel_consul.core.digest import is_wanted
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import Instance
from citadel_consul.core.snapshot import CheckStatus, Snapshot


class Cause(StrEnum):
    """Why an instance counts as failing; the worst first."""

    START_FAILURE = "start_failure"
    PROCESS_EXIT = "process_exit"
    HEALTH_CHECK = "health_check_failure"
    START_TIMEOUT = "start_timeout"
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True)
class Failure:
    """A failing instance. ``since`` is unix seconds.

    ``by_itself``: the process ended with a status of its own choice, as one does that has lost what it needs; a signal
    is nobody's choice. ``unwatched``: it ended while no node agent looked, as all do when a machine goes down.
    """

    instance: Instance
    cause: Cause
    since: float
    detail: str
    by_itself: bool = False
    unwatched: bool = False

    @property
    def dead(self) -> bool:
        """Whether nothing of it runs."""
        return self.cause in (Cause.START_FAILURE, Cause.PROCESS_EXIT)

    def __str__(self) -> str:
        return f"{self.instance}: {self.detail or self.cause}"


@dataclass(slots=True)
class Survey:
    """What is seen at one moment, by service.

    ``suspects`` are services that Consul calls critical while their node agents have not spoken yet. ``lapses`` are the
    moments at which node agents found a service failing. ``look_again_at`` is when a start has taken too long.
    """

    failures: dict[str, list[Failure]] = field(default_factory=dict)
    suspects: set[str] = field(default_factory=set)
    lapses: dict[str, list[float]] = field(default_factory=dict)
    idle: dict[str, list[Instance]] = field(default_factory=dict)
    """What is wanted and has not been told to run."""
    look_again_at: float | None = None

    def wake(self, at: float) -> None:
        self.look_again_at = at if self.look_again_at is None else min(at, self.look_again_at)


def survey(snapshot: Snapshot, now: float, ordered: Iterable[Instance] = ()) -> Survey:
    """Look at everything that is not as it should be, and at what has been ``ordered`` in the same turn."""
    found = Survey()
    checks, observed_of = snapshot.checks, snapshot.observed
    for instance in sorted({*snapshot.digested().unsettled, *ordered}):
        desired, observed = snapshot.desired.get(instance), observed_of.get(instance)
        if desired is None:
            continue
        if not desired.run:
            if desired.wanted and _is_placed(snapshot, instance):
                found.idle.setdefault(instance.service, []).append(instance)
            continue
        if observed is None:
            continue
        if observed.lapses:
            found.lapses.setdefault(instance.service, []).extend(observed.lapses)
        if observed.generation < desired.generation:
            continue
        if observed.phase is Phase.READY and instance not in checks:
            continue
        if instance.node in snapshot.agents and _is_placed(snapshot, instance):
            _judge(snapshot, now, found, instance, observed)
    return found


def is_healthy(snapshot: Snapshot, service: str) -> bool:
    """Whether every wanted instance of ``service`` serves, or has completed."""
    wanted = [i for i in snapshot.instances(service) if is_wanted(snapshot.desired.get(i))]
    return bool(wanted) and all(_serves(snapshot, instance) for instance in wanted)


def _serves(snapshot: Snapshot, instance: Instance) -> bool:
    observed, desired = snapshot.observed.get(instance), snapshot.desired.get(instance)
    if observed is None or desired is None or not desired.run or observed.generation < desired.generation:
        return False
    if observed.phase is Phase.READY:
        return snapshot.checks.get(instance) not in (CheckStatus.CRITICAL, CheckStatus.MAINTENANCE)
    return observed.phase is Phase.COMPLETED


def _is_placed(snapshot: Snapshot, instance: Instance) -> bool:
    spec = snapshot.specs.get(instance.service)
    return spec is not None and instance.node in spec.nodes


def _judge(snapshot: Snapshot, now: float, found: Survey, instance: Instance, observed: Observed) -> None:
    check = snapshot.checks.get(instance)
    if check is CheckStatus.MAINTENANCE:  # a person has taken it out of service: hands off
        return
    failure = None
    if observed.phase in (Phase.EXITED, Phase.STOPPED, Phase.FAILED):
        failure = _dead(instance, observed)
    elif observed.phase is Phase.STARTING:
        failure = _late(snapshot, now, found, instance, observed)
    elif observed.phase is Phase.READY:
        failure = _unwell(snapshot, found, instance, observed, check)
    if failure is not None:
        found.failures.setdefault(instance.service, []).append(failure)


def _dead(instance: Instance, observed: Observed) -> Failure:
    failed = observed.phase is Phase.FAILED
    return Failure(
        instance,
        Cause.START_FAILURE if failed else Cause.PROCESS_EXIT,
        observed.since,
        observed.detail,
        by_itself=not failed and observed.exit_signal is None,
        unwatched=observed.unwatched,
    )


def _late(snapshot: Snapshot, now: float, found: Survey, instance: Instance, observed: Observed) -> Failure | None:
    """A start that has used up its time, if the node agent says that the service itself does not answer."""
    began = observed.since if observed.started_at is None else observed.started_at
    deadline = began + snapshot.start_timeout(instance.service)
    if now < deadline:
        found.wake(deadline)
        return None
    if observed.failing_since is None:
        found.suspects.add(instance.service)
        return None
    return Failure(instance, Cause.START_TIMEOUT, deadline, observed.failure)


def _unwell(
    snapshot: Snapshot, found: Survey, instance: Instance, observed: Observed, check: CheckStatus | None
) -> Failure | None:
    if check is CheckStatus.CRITICAL:
        if observed.failing_since is not None:
            return Failure(instance, Cause.HEALTH_CHECK, observed.failing_since, observed.failure)
        if observed.contradicted_since is None:
            found.suspects.add(instance.service)
    restarts = snapshot.specs[instance.service].recovery.restart_degraded
    if check is CheckStatus.WARNING and observed.degraded_since is not None and restarts:
        return Failure(instance, Cause.DEGRADED, observed.degraded_since, observed.failure)
    return None
