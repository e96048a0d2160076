"""Moments as answers write them."""

from __future__ import annotations

from datetime import UTC, datetime


def instant(at: float) -> str:
    """A moment (unix seconds) in UTC to the second, as RFC 3339 writes it: ``2025-07-15T14:30:00Z``."""
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant_or_none(at: float | None) -> str | None:
    """Like :func:`instant`; None stays None."""
    return None if at is None else instant(at)


def seconds_between(begin: float | None, end: float | None) -> float | None:
    """The seconds from one moment to another to the millisecond, never below 0 (clocks of two nodes differ); None if
    either is not known."""
    return None if begin is None or end is None else round(max(0.0, end - begin), 3)
