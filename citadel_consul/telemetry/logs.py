"""Logs of citadel's own processes: the journal with its fields, lines for people, or JSON lines for collectors."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

from citadel_consul.telemetry.fields import fields_of
from citadel_consul.telemetry.journal import JournalHandler, is_journal

QUIET = ("httpx", "httpcore", "asyncio", "uvicorn.error")
"""Libraries that tell each request at INFO, which would drown what citadel has to say."""


def configure(level: str, style: str, fields: Mapping[str, str] | None = None) -> None:
    """Send the log to standard error. ``style`` is ``text`` or ``json``; at DEBUG the libraries may speak too.

    Where standard error is systemd's journal, ``text`` is an entry for each record, with ``fields`` in it.
    """
    handler = _handler(style, fields or {})
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    if level != "DEBUG":
        for name in QUIET:
            logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _handler(style: str, fields: Mapping[str, str]) -> logging.Handler:
    if style != "json" and is_journal(os.environ, sys.stderr.fileno()):
        return JournalHandler(fields)  # which notes time and level itself
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    return handler


class TextFormatter(logging.Formatter):
    """``2025-07-15T14:30:00.123Z WARNING orchestrator.loop: …``"""

    def format(self, record: logging.LogRecord) -> str:
        name = record.name.removeprefix("citadel_consul.")
        text = f"{_time(record)} {record.levelname} {name}: {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
