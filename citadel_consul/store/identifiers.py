"""Identifiers that sort by time, for operations and events."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


def new_id(at: float) -> str:
    """An identifier that sorts by ``at`` (unix seconds) to the microsecond: ``20250715T143000123456-k7x2``.

    The tail keeps two requesters apart who ask in the same microsecond. It is safe in a key and in a URL.
    """
    stamp = datetime.fromtimestamp(at, tz=UTC).strftime("%Y%m%dT%H%M%S%f")
    return f"{stamp}-{''.join(secrets.choice(_ALPHABET) for _ in range(4))}"
