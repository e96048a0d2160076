"""Asking the node agents of a stack what they measure. Free of anything web: the command line asks so, too.

All are asked at once, and given a second: an agent that does not answer costs its own figures and nothing else.
"""

from __future__ import annotations

import asyncio

import httpx

from citadel_consul.core.measurement import PATH, Measured, NodeMeasurements
from citadel_consul.store import documents
from citadel_consul.store.documents import AgentRecord, UndecodableError
from citadel_consul.store.state import StackState

PATIENCE_SECONDS = 1.0
MAX_PORT = 65535
MAX_BYTES = 4 * 1024 * 1024


async def read_measured(state: StackState, *, patience_seconds: float = PATIENCE_SECONDS) -> Measured:
    """What the node agents of a stack measure now. Never raises: what is missing is said in the answer."""
    records = state.agent_records()
    nodes: dict[str, NodeMeasurements] = {}
    unanswered: dict[str, str] = {}

    async def ask(client: httpx.AsyncClient, record: AgentRecord) -> None:
        found = await _ask(client, record, patience_seconds)
        if isinstance(found, NodeMeasurements):
            nodes[record.node] = found
        else:
            unanswered[record.node] = found

    # Without verification: the agents speak plain HTTP, and loading certificates would take longer than asking.
    http = httpx.AsyncClient(verify=False, trust_env=False, limits=httpx.Limits())  # noqa: S501
    async with http as client, asyncio.TaskGroup() as group:
        for record in records:
            group.create_task(ask(client, record))
    return Measured(nodes, unanswered)


async def _ask(client: httpx.AsyncClient, record: AgentRecord, patience_seconds: float) -> NodeMeasurements | str:
    """What one agent measures, or why that is not known."""
    if not record.api:
        return f"the node agent of {record.node} does not show what it measures"
    try:
        async with asyncio.timeout(patience_seconds):
            body = await _read(client, httpx.URL(f"http://{record.api}{PATH}"))
        found = documents.MEASUREMENTS.decode(body)
    except TimeoutError:
        return f"the node agent of {record.node} gave no answer within {patience_seconds:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return f"the node agent of {record.node} cannot be asked: {str(error) or type(error).__name__}"
    except UndecodableError as error:
        return f"what the node agent of {record.node} answers {error}"
    if found.node != record.node:  # its port belongs to another agent by now
        return f"another node agent ({found.node}) answers for {record.node}"
    return found


async def _read(client: httpx.AsyncClient, url: httpx.URL) -> bytes:
    if url.port is not None and url.port > MAX_PORT:  # no socket takes it, and asyncio says so in a group of errors
        raise ValueError(f"{url.port} is no port")
    async with client.stream("GET", url, timeout=None) as response:
        response.raise_for_status()
        body = b""
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MAX_BYTES:
                raise ValueError(f"its answer is longer than {MAX_BYTES} bytes")
        return body
