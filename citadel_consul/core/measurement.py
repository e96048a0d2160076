"""Measurements: what a node agent finds when it asks the services of its node how they are, at the moment of asking.

They are for looking at and decide nothing: decisions rest on what is in Consul.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from citadel_consul.core.model import Instance
from citadel_consul.core.snapshot import CheckStatus

PATH = "/v1/probes"
"""Where the HTTP endpoint of a node agent shows them."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One instance, asked at ``at`` (unix seconds; None: there is no answer yet).

    ``status`` is that of the worst of its http and tcp checks, None if it has none; ``response_time_ms`` what the
    slowest of those took that were answered. ``figures`` are numbers that it reports of itself. ``detail`` says what is
    wrong, or missing.
    """

    status: CheckStatus | None = None
    at: float | None = None
    response_time_ms: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CheckCounts:
    """Checks that were run: how many, how many of them found a service critical, and what ``answered`` ones took."""

    total: int = 0
    failed: int = 0
    answered: int = 0
    seconds: float = 0.0

    @property
    def mean_ms(self) -> float | None:
        """What an answered check took on average, in milliseconds."""
        return round(1000 * self.seconds / self.answered, 3) if self.answered else None

    @property
    def success_rate(self) -> float | None:
        """The share of checks that did not find a service critical, in per cent."""
        return round(100 * (self.total - self.failed) / self.total, 2) if self.total else None


@dataclass(frozen=True, slots=True)
class NodeMeasurements:
    """What the agent of a node has measured since it was started, at ``since`` (unix seconds)."""

    node: str
    since: float
    checks: CheckCounts
    instances: Mapping[str, Measurement]


@dataclass(frozen=True, slots=True)
class Measured:
    """What the node agents of a stack answered, by node, and why others did not."""

    nodes: Mapping[str, NodeMeasurements] = field(default_factory=dict)
    unanswered: Mapping[str, str] = field(default_factory=dict)

    def of(self, instance: Instance) -> Measurement:
        """The measurement of one instance; if there is none, its ``detail`` says why."""
        node = self.nodes.get(instance.node)
        if node is None:
            return Measurement(detail=self.unanswered.get(instance.node, f"no node agent runs on {instance.node}"))
        return node.instances.get(instance.service, Measurement(detail="it is not ready"))

    @property
    def checks(self) -> CheckCounts | None:
        """The checks that were run on all nodes that answered; None if none did."""
        return total_of(node.checks for node in self.nodes.values()) if self.nodes else None


def total_of(counts: Iterable[CheckCounts]) -> CheckCounts:
    """The counts of several nodes, added up."""
    found = list(counts)
    return CheckCounts(
        total=sum(each.total for each in found),
        failed=sum(each.failed for each in found),
        answered=sum(each.answered for each in found),
        seconds=sum(each.seconds for each in found),
    )
