"""What a node agent concludes about one of its instances from checks that it runs itself.

Consul's word alone restarts nothing: somebody who sits next to the service has to come to the same conclusion. A single
failed probe is none. What fails for longer than one interval of its check, probe after probe, does fail; the last of
these probes has to *begin* after that interval, so that a service which is slow for as long as one interval is let off
even if the answer to an early probe comes late. One probe that passes clears it at once, and says that Consul is wrong.

A witness that is starved itself is none: where this process does not get its turn in time, answers come too late
although the service gave them. What it found meanwhile does not count, up to :data:`MOST_PATIENCE` times as long as
usual: a service that fails for so long does fail.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from citadel_consul.agent.readiness import Finding

MOST_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is to be said of an instance; see :class:`~citadel_consul.core.lifecycle.Observed`. Times: unix seconds.

    ``lapsed_at`` is set when it was found failing for the first time, whether that turns out to last or not.
    """

    failing_since: float | None = None
    degraded_since: float | None = None
    contradicted_since: float | None = None
    failure: str = ""
    lapsed_at: float | None = None


@dataclass(frozen=True, slots=True)
class _Phase:
    """What all probes since a moment agree on. ``at`` is unix seconds, ``clock`` the same on the monotonic clock;
    ``sober_since`` is since when on that clock the witness can be trusted. ``confirmed``: it has lasted."""

    kind: str
    at: float
    clock: float
    sober_since: float
    confirmed: bool = False


class Examination:
    """One instance, examined from the moment at which Consul stopped calling it passing."""

    def __init__(self) -> None:
        self._phase: _Phase | None = None

    def take(self, finding: Finding | None, patience_seconds: float, *, at: float, clock: float) -> Diagnosis:
        """Take in what a probe that began at ``at`` found, by a check with an interval of ``patience_seconds``."""
        kind = "passing" if finding is None else "critical" if finding.critical else "warning"
        before = self._phase
        phase = before if before is not None and before.kind == kind else _Phase(kind, at, clock, clock)
        self._phase = phase
        if finding is None:
            return Diagnosis(contradicted_since=phase.at)
        enough = clock - phase.clock > MOST_PATIENCE * patience_seconds
        lasting = phase.confirmed or enough or clock - phase.sober_since > patience_seconds
        self._phase = replace(phase, confirmed=lasting)
        return Diagnosis(
            failing_since=phase.at if lasting and finding.critical else None,
            degraded_since=phase.at if lasting and not finding.critical else None,
            failure=finding.text if lasting else "",
            lapsed_at=phase.at if phase is not before and finding.critical else None,
        )

    def starved(self, clock: float) -> None:
        """Take note that this process did not get its turn in time before ``clock``; what is confirmed stays so."""
        if self._phase is not None and not self._phase.confirmed:
            self._phase = replace(self._phase, sober_since=clock)
