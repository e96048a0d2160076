"""The one request that shows a stack to be of use: ``smoke.yaml`` beside a stack file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from citadel_consul.config.source import parse_document, read_file
from citadel_consul.errors import InvalidInput, OperationFailed, Problem

EMPTY: Final[tuple[object, ...]] = (None, "", [], {})
EXCERPT = 300
"""How much of an unexpected answer is shown, in characters."""


class Smoke(BaseModel):
    """A request, and what its answer has to have.

    ``expect_fields`` are fields of its JSON that must not be empty; ``min_hops`` is how many different services its
    ``path`` has to name at least.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    url: str
    method: str = "POST"
    headers: Mapping[str, str] = {}
    body: Any = Field(default=None, alias="json")
    expect_status: int = 200
    expect_fields: tuple[str, ...] = ()
    min_hops: int = 0
    timeout_seconds: float = Field(default=30.0, gt=0)

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{url!r} is not a URL: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"{url!r} is not an http or https URL")
        return url

    def as_curl(self) -> str:
        """The request as a line for a shell."""
        parts = ["curl", "-s", self.url]
        if self.method != "GET" and self.body is None:
            parts[1:1] = ["-X", self.method]
        for name, value in self.headers.items():
            parts += ["-H", f"{name}: {value}"]
        if self.body is not None:
            if not any(name.lower() == "content-type" for name in self.headers):
                parts += ["-H", "Content-Type: application/json"]
            parts += ["-d", orjson.dumps(self.body).decode()]
        return shlex.join(parts)

    def describe(self, reply: Reply) -> Iterator[str]:
        """What came back, in lines for a person."""
        yield f"{self.method} {self.url}: HTTP {reply.status} in {reply.seconds * 1000:.0f} ms"
        names = _services(reply.data)
        if names:
            yield f"  through {' → '.join(names)}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, and how long it took (seconds). ``data`` is the JSON, None if it was none."""

    status: int
    data: Any
    seconds: float


def load_smoke(path: Path) -> Smoke | None:
    """The request in ``path``; None if there is no such file. Raises InvalidInput."""
    if not path.exists():
        return None
    document = parse_document(read_file(path), str(path))
    try:
        return Smoke.model_validate(document.data)
    except ValidationError as error:
        problems = [Problem(f"{path}: {'.'.join(map(str, e['loc']))}", e["msg"]) for e in error.errors()]
        raise InvalidInput(problems) from error


async def send_smoke(smoke: Smoke) -> Reply:
    """Send the request and hold the answer against what is expected; raises OperationFailed."""
    async with httpx.AsyncClient(trust_env=False, timeout=smoke.timeout_seconds) as client:
        try:
            response = await client.request(smoke.method, smoke.url, headers=dict(smoke.headers), json=smoke.body)
        except httpx.HTTPError as error:
            raise OperationFailed(f"{smoke.method} {smoke.url}: {str(error) or type(error).__name__}") from error
    reply = Reply(response.status_code, _json(response), response.elapsed.total_seconds())
    problems = list(unmet(smoke, reply, response.text))
    if problems:
        raise OperationFailed(f"{smoke.method} {smoke.url}: {'; '.join(problems)}")
    return reply


def unmet(smoke: Smoke, reply: Reply, text: str) -> Iterator[str]:
    """What ``reply`` lacks of what is expected; ``text`` is its body, to be shown."""
    if reply.status != smoke.expect_status:
        yield f"HTTP {reply.status} instead of {smoke.expect_status}: {text[:EXCERPT]}"
        return
    fields = reply.data if isinstance(reply.data, dict) else {}
    for name in smoke.expect_fields:
        if fields.get(name) in EMPTY:
            yield f"the answer's field {name!r} is {'empty' if name in fields else 'missing'}"
    services = set(_services(reply.data))
    if len(services) < smoke.min_hops:
        yield f"it passed through {len(services)} services instead of {smoke.min_hops}"


def _services(data: Any) -> list[str]:
    """The services that an answer says it passed through, in order."""
    path = data.get("path") if isinstance(data, dict) else None
    if not isinstance(path, list):
        return []
    return [str(hop.get("service", "?")) if isinstance(hop, dict) else str(hop) for hop in path]


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
