"""What an examination finds: a fault with its place, why it is one, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """``error``: something does not do what it says, or will not. ``warning``: it works, and will be regretted."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. ``code`` names its kind and does not change between versions; ``command`` mends it, if one can."""

    code: str
    severity: Severity
    place: str
    message: str
    remedy: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What one examination came to. ``summary`` says what was looked at; ``unknown`` why (all of) it could not be."""

    area: str
    summary: str = ""
    findings: tuple[Finding, ...] = ()
    unknown: str = ""
