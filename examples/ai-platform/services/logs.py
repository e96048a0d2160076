"""Structured logs: one JSON object a line on stdout, where the process's supervisor collects them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

from .tracing import request_id


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON, with the fields given as ``extra={"fields": {...}}``."""

    def __init__(self, service: str, node: str) -> None:
        super().__init__()
        self._who = {"service": service, "node": node}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._who,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            line["request_id"] = current
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            line.update(fields)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def set_up(service: str, node: str, level: str) -> None:
    """Send every log record of this process to stdout as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines(service, node))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
