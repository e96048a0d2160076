"""The one request that shows a stack to be of use: ``smoke.yaml`` beside a stack file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from citadel_consul.config.source import parse_document, read_file
from citadel_consul.errors import InvalidInput, OperationFailed, Problem


class Smoke(BaseModel):
    """A request, and what its answer has to have. ``min_hops`` is the least length of the answer's ``path``."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    url: str
    method: str = "POST"
    headers: Mapping[str, str] = {}
    body: Any = Field(default=None, alias="json")
    expect_status: int = 200
    expect_fields: tuple[str, ...] = ()
    min_hops: int = 0
    timeout_seconds: float = 30.0

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


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, and how long it took (seconds)."""

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
    reply = Reply(_json(response), response.elapsed.total_seconds())
    problems = list(_problems(smoke, response, reply.data))
    if problems:
        raise OperationFailed(f"{smoke.method} {smoke.url}: {'; '.join(problems)}")
    _show(smoke, response, reply)
    return reply


def _problems(smoke: Smoke, response: httpx.Response, data: Any) -> list[str]:
    if response.status_code != smoke.expect_status:
        return [f"HTTP {response.status_code} instead of {smoke.expect_status}: {response.text[:300]}"]
    missing = [name for name in smoke.expect_fields if not isinstance(data, dict) or name not in data]
    problems = [f"the answer has no field {name!r}" for name in missing]
    hops = data.get("path") or [] if isinstance(data, dict) else []
    if len(hops) < smoke.min_hops:
        problems.append(f"it passed through {len(hops)} services instead of {smoke.min_hops}")
    return problems


def _show(smoke: Smoke, response: httpx.Response, reply: Reply) -> None:
    click.echo(f"{smoke.method} {smoke.url}: HTTP {response.status_code} in {reply.seconds * 1000:.0f} ms")
    path = reply.data.get("path") if isinstance(reply.data, dict) else None
    if path:
        names = [hop.get("service", "?") if isinstance(hop, dict) else str(hop) for hop in path]
        click.echo(f"  through {' → '.join(names)}")


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
