"""Durations as Consul reads them: the syntax of Go's ``time.ParseDuration``."""

from __future__ import annotations

import re
from typing import Final

_UNIT_SECONDS: Final = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip
_PIECE = r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_PIECES: Final = re.compile(_PIECE)
_WHOLE: Final = re.compile(rf"\+?(?:{_PIECE})+")


def duration_seconds(text: object) -> float | None:
    """The seconds that ``text`` stands for (``1m30s``, ``250ms``); None if Consul would not take it."""
    if text == "0":
        return 0.0
    if not isinstance(text, str) or not _WHOLE.fullmatch(text):
        return None
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _PIECES.findall(text))
