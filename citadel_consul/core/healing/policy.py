"""What holds for the recovery of one service: its spec, with the orchestrator's settings where that is silent."""

from __future__ import annotations

from dataclasses import dataclass

from citadel_consul.core.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Policy:
    """A :class:`~citadel_consul.core.model.RecoveryPolicy` without gaps. Times are in seconds."""

    enabled: bool
    attempts: int
    delay_seconds: float
    max_delay_seconds: float
    total_seconds: float
    reset_after_seconds: float
    restart_degraded: bool


def policy_of(snapshot: Snapshot, service: str) -> Policy:
    """The policy of ``service``, which has to have a spec."""
    own, defaults = snapshot.specs[service].recovery, snapshot.defaults
    delay = defaults.recovery_delay_seconds if own.delay_seconds is None else own.delay_seconds
    return Policy(
        enabled=defaults.recovery_enabled if own.enabled is None else own.enabled,
        attempts=defaults.recovery_attempts if own.attempts is None else own.attempts,
        delay_seconds=delay,
        max_delay_seconds=max(own.max_delay_seconds, delay) if own.delay_seconds is None else own.max_delay_seconds,
        total_seconds=own.total_seconds,
        reset_after_seconds=own.reset_after_seconds,
        restart_degraded=own.restart_degraded,
    )
