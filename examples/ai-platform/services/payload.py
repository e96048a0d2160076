"""Reads the JSON of requests; whatever is wrong with it is told by the field's name."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from .failures import Rejected

MAX_BYTES = 8 * 1024 * 1024


class Json(Response):
    """A response of JSON; numpy arrays are taken as they are."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY, default=str)


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object in ``request``. Raises Rejected when it holds anything else, or more than 8 MB."""
    received = bytearray()
    async for part in request.stream():
        received += part
        if len(received) > MAX_BYTES:
            raise Rejected(f"the body is larger than {MAX_BYTES} bytes")
    try:
        body = orjson.loads(bytes(received))
    except ValueError as error:
        raise Rejected(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Rejected("the body must be a JSON object")
    return body


def text(body: dict[str, Any], field: str, *, default: str | None = None, longest: int = 100_000) -> str:
    """The text in ``field``, stripped. Raises Rejected when it is absent, empty, too long or no text."""
    value = body.get(field, default)
    if not isinstance(value, str) or (not value.strip() and default is None):
        raise Rejected(f"{field}: a text that is not empty is required")
    if len(value) > longest:
        raise Rejected(f"{field}: at most {longest} characters, got {len(value)}")
    return value.strip()


def whole(body: dict[str, Any], field: str, *, default: int, low: int, high: int) -> int:
    """The whole number in ``field``, within ``low`` and ``high``. Raises Rejected otherwise."""
    value = body.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Rejected(f"{field}: a whole number between {low} and {high} is required")
    return value


def texts(body: dict[str, Any], field: str, *, most: int, longest: int = 100_000) -> list[str]:
    """The list of texts in ``field``. Raises Rejected when it is absent, empty, too long or holds anything else."""
    value = body.get(field)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise Rejected(f"{field}: a list of texts that is not empty is required")
    if len(value) > most or any(len(item) > longest for item in value):
        raise Rejected(f"{field}: at most {most} texts of {longest} characters")
    return value


def query_limit(request: Request, *, default: int = 50, high: int = 500) -> int:
    """The ``limit`` of a list that is asked for. Raises Rejected when it makes no sense."""
    value = request.query_params.get("limit", str(default))
    if not value.isdigit() or not 0 < int(value) <= high:
        raise Rejected(f"limit: a whole number between 1 and {high} is required")
    return int(value)
