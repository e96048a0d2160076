"""Durations as people write them: ``250ms``, ``30s``, ``5m``, ``1h30m``, ``7d``; a plain number means seconds.

The text form is Go's, which Consul uses too, less its units below a millisecond and with days on top: the largest
unit first, every unit at most once.
"""

from __future__ import annotations

import math
import re

from citadel_consul.errors import InvalidInput

_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PLAIN = re.compile(_NUMBER)
_PARTS = re.compile("".join(f"(?:(?P<{unit}>{_NUMBER}){unit})?" for unit in _MILLISECONDS))

REMEDY = "write it like 250ms, 30s, 5m or 1h30m; a plain number means seconds"
PATTERN = "^[0-9]+(\\.[0-9]+)?$|^(?=[0-9])" + "".join(f"([0-9]+(\\.[0-9]+)?{unit})?" for unit in _MILLISECONDS) + "$"
"""The text form as a regular expression, for the JSON Schema."""


def parse_duration(value: object) -> float:
    """The seconds that ``value`` (text or a number) stands for; never negative, always finite.

    Raises InvalidInput, with an empty place, for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidInput.at("", f"{_shown(value)} is not a duration", REMEDY)
    seconds = _from_text(value.strip()) if isinstance(value, str) else _from_number(value)
    if seconds is None:
        raise InvalidInput.at("", f"{_shown(value)} is not a duration", REMEDY)
    if seconds < 0:
        raise InvalidInput.at("", f"{_shown(value)} is a negative duration", REMEDY)
    return seconds


def seconds_or_none(value: object) -> float | None:
    """What :func:`parse_duration` says, or None for what is no duration (and is reported elsewhere)."""
    try:
        return parse_duration(value)
    except InvalidInput:
        return None


def format_duration(seconds: float) -> str:
    """The shortest text that :func:`parse_duration` reads as the same duration, such as ``1h30m`` or ``250ms``."""
    milliseconds = round(seconds * 1000)
    if milliseconds / 1000 != seconds:  # finer than the units: keep every digit
        return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
    if not milliseconds:
        return "0s"
    text = ""
    for unit, size in _MILLISECONDS.items():
        count, milliseconds = divmod(milliseconds, size)
        text += f"{count}{unit}" if count else ""
    return text


def _from_text(text: str) -> float | None:
    if _PLAIN.fullmatch(text):
        return _from_number(float(text))
    if text.startswith("-") and _PARTS.fullmatch(text[1:]):
        return -1.0
    match = _PARTS.fullmatch(text)
    if not text or match is None:
        return None
    counts = {unit: float(count) for unit, count in match.groupdict().items() if count}
    # Milliseconds first: 51 * 0.001 is not the float nearest to 0.051, and 51 / 1000 is.
    return _from_number(sum(count * _MILLISECONDS[unit] for unit, count in counts.items()) / 1000)


def _from_number(number: float) -> float | None:
    try:
        seconds = float(number)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}…"
