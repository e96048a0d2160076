"""What a decision consists of: requests to the shell, each harmless to repeat."""

from __future__ import annotations

from dataclasses import dataclass

from citadel_consul.core.incident import Incident
from citadel_consul.core.lifecycle import Desired
from citadel_consul.core.model import Instance
from citadel_consul.core.operation import Operation, Step
from citadel_consul.core.stats import ServiceStats


@dataclass(frozen=True, slots=True)
class SetDesired:
    """Write what is wanted of one instance."""

    instance: Instance
    desired: Desired


@dataclass(frozen=True, slots=True)
class WriteOperation:
    """Write the head of an operation (its steps are written by :class:`WriteStep`)."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class WriteStep:
    """Write one step of an operation, new or changed."""

    operation: str
    position: int
    step: Step


@dataclass(frozen=True, slots=True)
class WriteIncident:
    """Write how an incident stands; it takes the place of the last one of its service."""

    incident: Incident


@dataclass(frozen=True, slots=True)
class WriteStats:
    """Write what is counted of one service; it takes the place of what was counted before."""

    stats: ServiceStats


@dataclass(frozen=True, slots=True)
class RecordEvent:
    """Write one thing that happened into the history."""

    kind: str
    message: str
    service: str | None = None
    node: str | None = None
    operation: str | None = None


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Look again no later than this moment (unix seconds), even if nothing changes."""

    at: float


Action = SetDesired | WriteOperation | WriteStep | WriteIncident | WriteStats | RecordEvent | WakeAt
