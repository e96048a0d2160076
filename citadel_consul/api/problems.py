"""Errors as RFC 9457 problem documents.

Each has a ``type`` that names the kind of problem (an anchor of this API's own ``/docs``), a ``title`` that is the same
for all of that kind, the ``status``, a ``detail`` for people, and the ``instance`` it happened at. Bad input also has
``errors``, one for each thing that is wrong, with place, message and remedy.
"""

from __future__ import annotations

import http
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from citadel_consul.errors import (
    BackendError,
    BackendUnavailable,
    CitadelError,
    Conflict,
    ConsulRefused,
    ConsulUnavailable,
    InvalidInput,
    NoLeader,
    NotFound,
    OperationFailed,
    PermissionDenied,
    Problem,
    Refused,
)
from citadel_consul.store.documents import UndecodableError

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
"""What Retry-After says where trying again can help: Consul elects a leader in about that time."""


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """A kind of problem: the anchor of its type, its title, its status, and whether trying again can help."""

    name: str
    title: str
    status: int
    retry: bool = False


INVALID = ProblemKind("invalid-input", "The request is not valid", 422)
MALFORMED = ProblemKind("malformed-body", "The body cannot be read", 400)
REFUSED = ProblemKind("refused", "A rule of citadel forbids it", 409)
DEPENDENTS = ProblemKind("dependents-running", "Running services depend on it", 409)
CONFLICT = ProblemKind("conflict", "Somebody else changed it meanwhile", 409, retry=True)
DENIED = ProblemKind("permission-denied", "Consul does not allow it", 403)
NOT_FOUND = ProblemKind("not-found", "There is no such thing", 404)
METHOD = ProblemKind("method-not-allowed", "The method is not allowed here", 405)
CONSUL_REFUSED = ProblemKind("consul-refused", "Consul refused it", 502)
CONSUL_UNAVAILABLE = ProblemKind("consul-unavailable", "Consul does not answer", 503, retry=True)
NO_LEADER = ProblemKind("no-leader", "No orchestrator leads", 504)
UNREADABLE = ProblemKind("unreadable-document", "A document in the KV store cannot be read", 500)
INTERNAL = ProblemKind("internal-error", "The server failed", 500)
BODY_TOO_LARGE = ProblemKind("body-too-large", "The body is too large", 413)
NOT_JSON = ProblemKind("unsupported-media-type", "The body has to be JSON", 415)
WRONG_HOST = ProblemKind("wrong-host", "This server does not answer for that host", 421)
CROSS_ORIGIN = ProblemKind("cross-origin", "Requests of other sites are refused", 403)

ALL_KINDS = (
    INVALID, MALFORMED, REFUSED, DEPENDENTS, CONFLICT, DENIED, NOT_FOUND, CONSUL_REFUSED,
    METHOD, CONSUL_UNAVAILABLE, NO_LEADER, UNREADABLE, INTERNAL, BODY_TOO_LARGE, NOT_JSON, WRONG_HOST, CROSS_ORIGIN,
)  # fmt: skip

DESCRIPTION: dict[str, Any] = {
    "description": "An error, as a problem document (RFC 9457).",
    "content": {
        MEDIA_TYPE: {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail", "instance"],
                "properties": {
                    "type": {"type": "string", "format": "uri-reference"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "instance": {"type": "string", "format": "uri-reference"},
                    "errors": {"type": "array", "items": {"type": "object"}},
                },
            }
        }
    },
}
"""How the OpenAPI document describes errors."""

# The first that fits counts: the more special before the more general.
_KINDS: tuple[tuple[type[CitadelError], ProblemKind], ...] = (
    (InvalidInput, INVALID),
    (Refused, REFUSED),
    (PermissionDenied, DENIED),
    (NotFound, NOT_FOUND),
    (ConsulRefused, CONSUL_REFUSED),
    (Conflict, CONFLICT),
    (ConsulUnavailable, CONSUL_UNAVAILABLE),
    (NoLeader, NO_LEADER),
    (BackendUnavailable, CONSUL_UNAVAILABLE),
    (BackendError, REFUSED),
    (OperationFailed, REFUSED),
)


def problem(
    kind: ProblemKind,
    detail: str,
    path: str,
    *,
    errors: Iterable[Problem] = (),
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, object] | None = None,
) -> Response:
    """A problem document. ``members`` are further members of it, as the RFC allows them."""
    document: dict[str, object] = {
        "type": f"/docs#{kind.name}" if kind.name else "about:blank",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": path,
        **(members or {}),
    }
    found = [{"place": e.place, "message": e.message, "remedy": e.remedy} for e in errors]
    if found:
        document["errors"] = found
    extra = {"Retry-After": str(RETRY_SECONDS)} if kind.retry else {}
    return Response(
        orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        kind.status,
        {**extra, **(headers or {})},
        MEDIA_TYPE,
    )


def problem_of(error: CitadelError, path: str, *, members: Mapping[str, object] | None = None) -> Response:
    """The problem document of one of our errors."""
    kind = next((kind for known, kind in _KINDS if isinstance(error, known)), INTERNAL)
    detail = str(error)
    if isinstance(error, PermissionDenied):
        detail += "; the API acts with the caller's token: send it as X-Consul-Token or as a bearer token"
    errors = error.problems if isinstance(error, InvalidInput) else ()
    return problem(kind, detail, path, errors=errors, members=members)


def install(app: FastAPI) -> None:
    """Have ``app`` answer every error with a problem document."""
    table: dict[type[Exception], Callable[[Request, Exception], Response]] = {
        CitadelError: _ours,
        ExceptionGroup: _group,
        UndecodableError: _unreadable,
        RequestValidationError: _validation,
        HTTPException: _http,
        Exception: _unexpected,
    }
    for kind, handler in table.items():
        app.add_exception_handler(kind, handler)


def _ours(request: Request, error: Exception) -> Response:
    if isinstance(error, CitadelError):
        return problem_of(error, request.url.path)
    return _unexpected(request, error)


def _group(request: Request, error: Exception) -> Response:
    """Tasks that failed together are told as the first of them, if all are errors of ours."""
    if isinstance(error, ExceptionGroup):
        ours, others = error.split(CitadelError)
        if ours is not None and others is None:
            first: BaseException = ours
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            if isinstance(first, CitadelError):
                return problem_of(first, request.url.path)
    raise error  # the server logs it and answers 500


def _unreadable(request: Request, error: Exception) -> Response:
    return problem(UNREADABLE, f"the document {error}", request.url.path)


def _validation(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        return _unexpected(request, error)
    found = list(error.errors())
    if any(item["type"] == "json_invalid" for item in found):
        said = found[0].get("ctx", {}).get("error", "it is not JSON")
        return problem(MALFORMED, f"the body is not JSON: {said}", request.url.path)
    problems = [Problem(_place(item["loc"]), _message(item)) for item in found]
    return problem(INVALID, "; ".join(map(str, problems)), request.url.path, errors=problems)


def _place(location: Iterable[object]) -> str:
    """``services[0]`` of the body, ``wait`` of the query: the part that holds it goes without saying."""
    text = ""
    for part in list(location)[1:]:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _message(item: Mapping[str, object]) -> str:
    kind = item["type"]
    if kind == "extra_forbidden":
        return "unknown field"
    if kind == "missing":
        return "is missing"
    return str(item["msg"]).removeprefix("Value error, ")


def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return _unexpected(request, error)
    path = request.url.path
    if error.status_code == 404:
        return problem(NOT_FOUND, f"there is nothing at {path}; /docs lists what there is", path, headers=error.headers)
    if error.status_code == 405:
        return problem(METHOD, f"{path} does not take {request.method}", path, headers=error.headers)
    phrase = http.HTTPStatus(error.status_code).phrase
    kind = ProblemKind("", phrase, error.status_code)
    return problem(kind, str(error.detail), path, headers=error.headers)


def _unexpected(request: Request, error: Exception) -> Response:
    """A bug. Its text is for the log (the server writes it there), not for whoever asks."""
    del error
    return problem(INTERNAL, "an unexpected error; the log of this orchestrator tells more", request.url.path)
