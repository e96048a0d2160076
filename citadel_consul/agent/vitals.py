"""How what is found out about the health of an instance stands in its report."""

from __future__ import annotations

from dataclasses import replace

from citadel_consul.agent.examination import Diagnosis
from citadel_consul.core.healing.flapping import LAPSES_KEPT
from citadel_consul.core.lifecycle import Observed

LAPSES_SECONDS = 3600.0
"""For how long a report carries a lapse: enough for any penalty that has not decayed."""


def with_diagnosis(seen: Observed, diagnosis: Diagnosis) -> Observed:
    """``seen`` with what an examination concluded."""
    lapses = seen.lapses
    if diagnosis.lapsed_at is not None:
        begin = diagnosis.lapsed_at - LAPSES_SECONDS
        lapses = (*(at for at in lapses if at > begin), diagnosis.lapsed_at)[-LAPSES_KEPT:]
    return replace(
        seen,
        failing_since=diagnosis.failing_since,
        degraded_since=diagnosis.degraded_since,
        contradicted_since=diagnosis.contradicted_since,
        failure=diagnosis.failure,
        lapses=lapses,
    )


def unexamined(seen: Observed) -> Observed:
    """``seen`` without what was found out in an earlier phase of its life; its lapses stay."""
    return replace(seen, failing_since=None, degraded_since=None, contradicted_since=None, failure="")
