"""Answers as HTTP responses."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from fastapi import Response

from citadel_consul.core.answers.operations import operation_answer
from citadel_consul.core.operation import Operation

PREFIX = "/api/v1/orchestrator"


def reply(answer: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A dataclass (or dict) as indented JSON: it is read by people with curl as often as by programs."""
    content = orjson.dumps(answer, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return Response(content, status, headers, "application/json")


def url_of(operation_id: str) -> str:
    """Where an operation is looked at."""
    return f"{PREFIX}/operations/{operation_id}"


def accepted(operation: Operation) -> Response:
    """202: the operation is under way (or will be), and this is where it can be looked at."""
    url = url_of(operation.id)
    body = {"operation": operation_answer(operation, with_steps=bool(operation.steps)), "url": url}
    return reply(body, 202, {"Location": url})
