"""Service ``auth-service``: API keys in postgres.

``POST /verify {"key"}`` says whose key it is and what it may do. With a key of scope ``admin`` in ``X-Api-Key``:
``POST /keys``, ``GET /keys``, ``DELETE /keys/{id}``. Keys are random and long, so a plain SHA-256 of one is what is
kept; nobody can read a key out of the database. ``BOOTSTRAP_API_KEY`` makes the first key.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from typing import Any, LiteralString

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .application import Connections, Service, run
from .database import Database
from .failures import Forbidden, Missing, Rejected, Unauthorized
from .payload import Json, body_of, text, whole
from .settings import Settings

SCOPES = ("admin", "ask", "documents", "usage")
PER_MINUTE, BURST = 600, 60
BOOTSTRAP_PER_MINUTE, BOOTSTRAP_BURST = 6000, 200

_SCHEMA: LiteralString = """
CREATE TABLE IF NOT EXISTS api_keys (
    id uuid PRIMARY KEY,
    client text NOT NULL,
    digest bytea NOT NULL UNIQUE,
    scopes text[] NOT NULL,
    per_minute integer NOT NULL,
    burst integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
)
"""
_INSERT: LiteralString = """
INSERT INTO api_keys (id, client, digest, scopes, per_minute, burst)
VALUES (%(id)s, %(client)s, %(digest)s, %(scopes)s, %(per_minute)s, %(burst)s)
ON CONFLICT (digest) DO NOTHING
"""
_FIND: LiteralString = """
SELECT id::text, client, scopes, per_minute, burst FROM api_keys WHERE digest = %s AND revoked_at IS NULL
"""
_LIST: LiteralString = """
SELECT id::text, client, scopes, per_minute, burst, created_at, revoked_at FROM api_keys ORDER BY created_at
"""
_REVOKE: LiteralString = """
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = %s RETURNING id::text
"""


def digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()


def scopes_of(body: dict[str, Any]) -> list[str]:
    """The scopes in ``body``. Raises Rejected for one that does not exist."""
    wanted = body.get("scopes", ["ask"])
    if not isinstance(wanted, list) or not wanted or not set(wanted) <= set(SCOPES):
        raise Rejected(f"scopes: a list of {', '.join(SCOPES)} is required")
    return sorted(set(wanted))


class Keys:
    """The keys in the database."""

    def __init__(self, database: Database, bootstrap: str) -> None:
        self._database = database
        self._bootstrap = bootstrap

    async def start(self) -> None:
        """Make the table and the first key."""
        await self._database.ensure(_SCHEMA)
        if self._bootstrap:
            await self._add(self._bootstrap, "demo", list(SCOPES), BOOTSTRAP_PER_MINUTE, BOOTSTRAP_BURST)

    async def verify(self, key: str) -> dict[str, Any]:
        """Whose ``key`` it is. Raises Unauthorized when it is nobody's, or was revoked."""
        rows = await self._database.rows(_FIND, [digest(key)])
        if not rows:
            raise Unauthorized("the API key is unknown or was revoked")
        return rows[0]

    async def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """A new key; its text is in the answer and nowhere else."""
        key = "aip_" + secrets.token_urlsafe(24)
        client = text(body, "client", longest=100)
        per_minute = whole(body, "per_minute", default=PER_MINUTE, low=1, high=1_000_000)
        burst = whole(body, "burst", default=BURST, low=1, high=100_000)
        identity = await self._add(key, client, scopes_of(body), per_minute, burst)
        return {"id": identity, "client": client, "key": key}

    async def every(self) -> list[dict[str, Any]]:
        """All keys, without their texts."""
        return await self._database.rows(_LIST)

    async def revoke(self, identity: str) -> None:
        """Let a key no longer hold, at once. Raises Missing."""
        try:
            wanted = uuid.UUID(identity)
        except ValueError as error:
            raise Missing(f"there is no key {identity}") from error
        if not await self._database.rows(_REVOKE, [wanted]):
            raise Missing(f"there is no key {identity}")

    async def _add(self, key: str, client: str, scopes: list[str], per_minute: int, burst: int) -> str:
        identity = uuid.uuid4()
        row = {"id": identity, "client": client, "digest": digest(key), "scopes": scopes}
        await self._database.execute(_INSERT, {**row, "per_minute": per_minute, "burst": burst})
        return str(identity)


def build(settings: Settings, connections: Connections) -> Service:
    """The service over the postgres that Consul knows."""
    database = Database(settings, connections.resolver)
    keys = Keys(database, settings.text("BOOTSTRAP_API_KEY"))

    async def verify(request: Request) -> Response:
        return Json(await keys.verify(text(await body_of(request), "key", longest=200)))

    async def manage(request: Request) -> Response:
        owner = await keys.verify(request.headers.get("x-api-key", ""))
        if "admin" not in owner["scopes"]:
            raise Forbidden("a key of scope admin is required")
        if request.method == "GET":
            return Json({"keys": await keys.every()})
        if request.method == "POST":
            return Json(await keys.create(await body_of(request)), 201)
        await keys.revoke(request.path_params["id"])
        return Json({"revoked": request.path_params["id"]})

    routes = [
        Route("/verify", verify, methods=["POST"]),
        Route("/keys", manage, methods=["GET", "POST"]),
        Route("/keys/{id}", manage, methods=["DELETE"]),
    ]
    return Service(settings, routes, start=keys.start, probes={"postgresql": database.probe}, close=[database.close])


if __name__ == "__main__":
    run("auth-service", build)
