"""The endpoints on operations: what was requested, how far it is, and taking it back."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from citadel_consul.api.replies import PREFIX, accepted, reply, url_of
from citadel_consul.api.site import caller_of, name_of, site_of
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.answers.operations import OperationsAnswer, operation_answer, operations_answer
from citadel_consul.core.answers.results import result_of
from citadel_consul.core.operation import Operation
from citadel_consul.errors import NotFound
from citadel_consul.store.keys import Keys
from citadel_consul.store.reading import read_operation
from citadel_consul.store.requests import cancel

router = APIRouter(prefix=f"{PREFIX}/operations", tags=["Operations"])

OperationId = Annotated[
    str,
    Path(
        pattern=r"^[0-9]{8}T[0-9]{12}-[a-z0-9]{4}$",
        description="As the answer to a request, or the list, has it.",
        examples=["20250715T143000123456-k7x2"],
    ),
]
_RESULT: dict[int | str, dict[str, Any]] = {
    200: {"description": "`operation` and `url`; the result as well (e.g. `startup_result`) once it has ended."}
}
_CANCELLED: dict[int | str, dict[str, Any]] = {202: {"description": "Its end was asked for."}}


@router.get("", response_model=OperationsAnswer)
async def operations(request: Request) -> Response:
    """The operations that are remembered, newest last: the unfinished ones and the last hundred that ended."""
    state = await site_of(request).read(caller_of(request))
    return reply(operations_answer(state.all_operations()))


@router.get("/{operation_id}", responses=_RESULT)
async def operation(request: Request, operation_id: OperationId) -> Response:
    """One operation with its steps, and its result once it has ended."""
    site, client = site_of(request), caller_of(request)
    found = await _read(client, site.keys, operation_id)
    body: dict[str, object] = {"operation": operation_answer(found), "url": url_of(found.id)}
    if found.ended:
        snapshot = (await site.read(client)).snapshot()
        result = result_of(snapshot, found, time.time())
        body |= {name: getattr(result, name) for name in result.__dataclass_fields__}
    return reply(body)


@router.delete("/{operation_id}", status_code=202, responses=_CANCELLED)
async def cancel_operation(request: Request, operation_id: OperationId) -> Response:
    """Ask for the end of an operation: what has not begun is skipped, what has begun is seen through."""
    return await _cancel(request, operation_id)


@router.post("/{operation_id}/cancel", status_code=202, responses=_CANCELLED)
async def post_cancel(request: Request, operation_id: OperationId) -> Response:
    """The same as DELETE, for clients that have no other method than POST. It takes no body."""
    return await _cancel(request, operation_id)


async def _cancel(request: Request, operation_id: str) -> Response:
    site, client = site_of(request), caller_of(request)
    await cancel(client, site.keys, operation_id, by=name_of(request))
    return accepted(await _read(client, site.keys, operation_id))


async def _read(client: ConsulClient, keys: Keys, operation_id: str) -> Operation:
    found = await read_operation(client, keys, operation_id)
    if found is None:
        raise NotFound(f"there is no operation {operation_id!r}; only the last hundred that ended are remembered")
    return found
