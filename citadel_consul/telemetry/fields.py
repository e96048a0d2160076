"""What a log record is about, apart from its text: fields that the journal and JSON lines carry."""

from __future__ import annotations

import logging
from collections.abc import Mapping

_ATTRIBUTE = "citadel_fields"


def about(**fields: object) -> dict[str, Mapping[str, str]]:
    """The ``extra`` of a record that is about something: ``log.info(…, extra=about(service="redis"))``."""
    return {_ATTRIBUTE: {name: str(value) for name, value in fields.items() if value is not None}}


def fields_of(record: logging.LogRecord) -> Mapping[str, str]:
    """What ``record`` is about; empty if nobody said."""
    found: Mapping[str, str] = getattr(record, _ATTRIBUTE, {})
    return found
