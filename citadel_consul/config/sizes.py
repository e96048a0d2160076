"""Sizes in bytes as people write them: ``65536``, ``64KiB``, ``10MiB``, ``10MB``."""

from __future__ import annotations

import re

from citadel_consul.errors import InvalidInput

_UNITS = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_SIZE = re.compile(r"([0-9]{1,15})\s*([A-Za-z]*)")

REMEDY = "write it like 64KiB, 10MiB or 1GiB; a plain number means bytes"
PATTERN = "^[0-9]{1,15}\\s*(" + "|".join(unit for unit in _UNITS if unit) + ")?$"
"""The text form as a regular expression, for the JSON Schema."""


def parse_size(value: object) -> int:
    """The bytes that ``value`` (text or a whole number) stands for.

    Raises InvalidInput, with an empty place, for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return int(value)
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[2] not in _UNITS:
        raise InvalidInput.at("", f"{value!r} is not a size", REMEDY)
    return int(match[1]) * _UNITS[match[2]]
