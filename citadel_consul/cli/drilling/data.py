"""Data that has to survive: put in before a shutdown, found after the next start.

``drill.yaml`` beside a stack file says how: one request that writes, one that reads. Each ``{{ token }}`` in it becomes
a word that is new every time, so that what is found is what was written by this drill and no other.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from citadel_consul.cli.smoke import EXCERPT, Smoke
from citadel_consul.config.source import parse_document, read_file
from citadel_consul.errors import InvalidInput, Problem

TOKEN = "{{ token }}"  # noqa: S105 - a place for a word, and no secret
FILE = "drill.yaml"
RETRY_SECONDS = 0.2


class DataRequest(Smoke):
    """A request, and what its answer has to be; ``contains`` has to be part of it."""

    contains: str = ""


class DataRequests(BaseModel):
    """What ``drill.yaml`` holds. After a start, ``read`` is repeated for ``within_seconds`` until it succeeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    write: DataRequest
    read: DataRequest
    within_seconds: float = Field(default=20.0, gt=0)


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of the data: how much was written, and what is wrong with it."""

    written: int = 0
    problems: tuple[str, ...] = ()


class DataHook:
    """Writes and reads by the requests of a file. Each datum is remembered by its token."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._requests_of(f"drill{uuid.uuid4().hex[:12]}")  # whatever is wrong with the file is found before the drill
        self._tokens: list[str] = []

    async def write(self) -> Kept:
        """Put in one more datum; it counts if the stack says that it has it."""
        token = f"drill{uuid.uuid4().hex[:12]}"
        requests = self._requests_of(token)
        problem = await _insist(lambda: send(requests.write), requests.within_seconds)
        if problem is not None:
            return Kept(len(self._tokens), (f"nothing could be written: {problem}",))
        self._tokens.append(token)
        return Kept(len(self._tokens))

    async def read(self) -> Kept:
        """Look for everything that was written."""
        problems = []
        for number, token in enumerate(self._tokens, start=1):
            requests = self._requests_of(token)
            problem = await _insist(lambda request=requests.read: send(request), requests.within_seconds)  # type: ignore[misc]
            if problem is not None:
                problems.append(f"datum {number} of {len(self._tokens)} is gone: {problem}")
        return Kept(len(self._tokens), tuple(problems))

    def _requests_of(self, token: str) -> DataRequests:
        document = parse_document(read_file(self._path), str(self._path))
        try:
            return DataRequests.model_validate(_filled(document.data, token))
        except ValidationError as error:
            problems = [Problem(f"{self._path}: {'.'.join(map(str, e['loc']))}", e["msg"]) for e in error.errors()]
            raise InvalidInput(problems) from error


async def send(request: DataRequest) -> str | None:
    """Send a request; returns what is wrong with its answer, None if it is as it has to be."""
    async with httpx.AsyncClient(trust_env=False, timeout=request.timeout_seconds) as client:
        try:
            response = await client.request(
                request.method, request.url, headers=dict(request.headers), json=request.body
            )
        except httpx.HTTPError as error:
            return f"{request.method} {request.url}: {str(error) or type(error).__name__}"
    where = f"{request.method} {request.url}"
    if response.status_code != request.expect_status:
        return f"{where}: HTTP {response.status_code} instead of {request.expect_status}: {response.text[:EXCERPT]}"
    return None if request.contains in response.text else f"{where}: the answer does not contain {request.contains!r}"


async def _insist(attempt: Callable[[], Awaitable[str | None]], within_seconds: float) -> str | None:
    """Repeat ``attempt`` until it finds nothing wrong; returns what it found last."""
    deadline = asyncio.get_running_loop().time() + within_seconds
    while True:
        problem = await attempt()
        if problem is None or asyncio.get_running_loop().time() > deadline:
            return problem
        await asyncio.sleep(RETRY_SECONDS)


def _filled(value: Any, token: str) -> Any:
    """``value`` with the token in every place for it."""
    if isinstance(value, str):
        return value.replace(TOKEN, token)
    if isinstance(value, Mapping):
        return {key: _filled(item, token) for key, item in value.items()}
    return [_filled(item, token) for item in value] if isinstance(value, Sequence) else value
