"""The rules of the linter: their codes, which do not change, and how bad it is to break one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from citadel_consul.core.finding import Finding, Severity

RULES: Final[Mapping[str, Severity]] = {
    "bad-duration": Severity.ERROR,
    "interval-under-1s": Severity.ERROR,
    "timeout-over-interval": Severity.ERROR,
    "no-threshold": Severity.WARNING,
    "ttl-too-short": Severity.WARNING,
    "deregister-under-1m": Severity.ERROR,
    "deregister-too-soon": Severity.ERROR,
    "scripts-forbidden": Severity.ERROR,
    "duplicate-service-id": Severity.ERROR,
    "duplicate-check-id": Severity.ERROR,
    "password-in-check": Severity.ERROR,
    "no-check": Severity.WARNING,
    "volatile-output": Severity.WARNING,
}


def broken(code: str, place: str, message: str, remedy: str) -> Finding:
    """A finding of the rule ``code``."""
    return Finding(code, RULES[code], place, message, remedy)
