"""When a Consul server that was just started can be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import orjson


async def is_ready(client: httpx.AsyncClient, node: str, data_dir: Path) -> bool:
    """Whether the server on ``data_dir``, called ``node``, leads and can give sessions and locks.

    ``client`` has the address of its HTTP API. Nobody who answers there is not yet ready, and neither is somebody else.
    """
    try:
        # Answered at once from local state. Asking for anything consistent before there is a leader would make the
        # agent wait for one and look again at long intervals.
        if not await _ask(client, "/v1/status/leader"):
            return False
        # Sessions are bound to serfHealth, which the leader adds some milliseconds after its election.
        checks = await _ask(client, f"/v1/health/node/{node}?consistent")
        if not any(check["CheckID"] == "serfHealth" and check["Status"] == "passing" for check in checks or ()):
            return False
        # Another Consul may have taken the port in the moment before ours wanted to; ours is about to end then.
        agent = await _ask(client, "/v1/agent/self")
        return bool(agent) and agent["Config"]["NodeID"] == (data_dir / "node-id").read_text().strip()
    except (httpx.TransportError, OSError, ValueError, KeyError, TypeError):
        return False


async def _ask(client: httpx.AsyncClient, path: str) -> Any:
    """What Consul answers; ``None`` while it answers with an error."""
    response = await client.get(path)
    return orjson.loads(response.content) if response.status_code == httpx.codes.OK else None
