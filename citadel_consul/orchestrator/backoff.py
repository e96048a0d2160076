"""How long to wait before the next attempt of a recovery, and when it is enough: tenacity, built from each policy.

Nothing is retried in here, and nobody sleeps: attempts are operations that outlive this process, and waiting is a wish
to be woken. Tenacity's policies are asked what they would do, with the state of the bout as it stands in the incident.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, stop_after_attempt, stop_after_delay, wait_random_exponential

from citadel_consul.core.healing.policy import Policy, policy_of
from citadel_consul.core.incident import Backoff, Incident
from citadel_consul.core.snapshot import Snapshot


def retrying(policy: Policy) -> Retrying:
    """The policy as tenacity has it: exponential with full jitter, bounded by attempts and by total time."""
    return Retrying(
        stop=stop_after_attempt(policy.attempts) | stop_after_delay(policy.total_seconds),
        wait=wait_random_exponential(multiplier=policy.delay_seconds, max=policy.max_delay_seconds),
    )


def bout(retry: Retrying, attempts: int, began_at: float, now: float) -> RetryCallState:
    """Where a bout is after ``attempts`` attempts that failed, the last of them at ``now``."""
    state = RetryCallState(retry, None, (), {})
    state.attempt_number = attempts
    state.start_time = began_at
    state.outcome_timestamp = now
    return state


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A delay that was drawn, and for what: the same question gets the same answer."""

    incident: str
    attempts: int
    policy: Policy
    delay_seconds: float


class Backoffs:
    """Draws the delays of one leadership. A delay counts once it is written into its incident."""

    def __init__(self) -> None:
        self._drawn: dict[str, _Drawn] = {}

    def of(self, snapshot: Snapshot, now: float) -> Mapping[str, Backoff]:
        """What the policies say of every service that fails, or did a moment ago, with attempts in its present bout."""
        digest = snapshot.digested()
        concerned = {*digest.incidents, *(instance.service for instance in digest.unsettled)}
        found = {
            service: self._backoff(incident, policy_of(snapshot, service), now)
            for service in sorted(concerned & snapshot.specs.keys())
            if (incident := snapshot.incidents.get(service)) is not None and incident.attempts
        }
        self._drawn = {service: drawn for service, drawn in self._drawn.items() if service in found}
        return found

    def _backoff(self, incident: Incident, policy: Policy, now: float) -> Backoff:
        retry = retrying(policy)
        state = bout(retry, incident.attempts, incident.bout_began_at, now)
        drawn = self._drawn.get(incident.service)
        if drawn is None or (drawn.incident, drawn.attempts, drawn.policy) != (incident.id, incident.attempts, policy):
            drawn = _Drawn(incident.id, incident.attempts, policy, float(retry.wait(state)))
            self._drawn[incident.service] = drawn
        return Backoff(incident.attempts, drawn.delay_seconds, bool(retry.stop(state)))
