"""The endpoints that request something: each writes an operation with the caller's token."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from citadel_consul.api.bodies import (
    DrainBody,
    RecoverBody,
    RecoveryTestBody,
    RequestBody,
    RestartBody,
    ShutdownBody,
    StartupBody,
)
from citadel_consul.api.replies import PREFIX, reply
from citadel_consul.api.requesting import Wish, carry_out
from citadel_consul.api.site import caller_of, site_of
from citadel_consul.core.answers.drain import DrainAnswer
from citadel_consul.core.answers.recovery import (
    RecoveryAnswer,
    RecoveryTestAnswer,
    recovery_reason,
    recovery_test_answer,
)
from citadel_consul.core.answers.restart import RestartAnswer
from citadel_consul.core.answers.shutdown import ShutdownAnswer
from citadel_consul.core.answers.startup import StartupAnswer
from citadel_consul.core.operation import Kind, Options
from citadel_consul.core.plan import resolve_targets
from citadel_consul.errors import InvalidInput

LONGEST_WAIT_SECONDS = 3600.0
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"description": "It goes on; Location says where it can be looked at."},
    409: {"description": "Refused, e.g. because running services depend on it."},
}

router = APIRouter(prefix=PREFIX, tags=["Requests"])

Wait = Annotated[
    float | None,
    Query(
        ge=0,
        le=LONGEST_WAIT_SECONDS,
        allow_inf_nan=False,
        description="Seconds to wait for the result before answering 202. Default: as long as the operation may take.",
    ),
]


@router.post("/startup", response_model=StartupAnswer, responses=_ACCEPTED)
async def startup(request: Request, body: StartupBody, wait: Wait = None) -> Response:
    """Start services, and everything that they need, in dependency order. What runs already is left alone."""
    options = Options(on_failure=body.on_failure, timeout_seconds=body.timeout_seconds, reason=body.reason)
    return await carry_out(request, Wish(Kind.STARTUP, tuple(body.services), options, "services", wait))


@router.post("/shutdown", response_model=ShutdownAnswer, responses=_ACCEPTED)
async def shutdown(request: Request, body: ShutdownBody, wait: Wait = None) -> Response:
    """Stop services in reverse dependency order. With running dependents it takes `cascade`."""
    options = Options(
        cascade=body.cascade, graceful=body.graceful, timeout_seconds=body.timeout_seconds, reason=body.reason
    )
    return await carry_out(request, Wish(Kind.SHUTDOWN, tuple(body.services), options, "services", wait))


@router.post("/restart", response_model=RestartAnswer, responses=_ACCEPTED)
async def restart(request: Request, body: RestartBody, wait: Wait = None) -> Response:
    """Restart a service in place; its dependents do afterwards what their edges say.

    With `rolling` one instance after the other, so that clients notice nothing.
    """
    options = Options(
        cascade=body.cascade,
        graceful=body.graceful,
        timeout_seconds=body.timeout_seconds,
        reason=body.reason,
        rolling=body.rolling,
        subtree=body.subtree,
        force=body.force,
        drain_seconds=body.drain_seconds,
    )
    return await carry_out(request, Wish(Kind.RESTART, (body.service,), options, "service", wait))


@router.post("/drain", response_model=DrainAnswer, responses=_ACCEPTED)
async def drain(request: Request, body: DrainBody, wait: Wait = None) -> Response:
    """Take instances out of DNS, let them finish what they have in hand, and stop them.

    They stay down until they are started.
    """
    options = Options(
        timeout_seconds=body.timeout_seconds, reason=body.reason, force=body.force, drain_seconds=body.drain_seconds
    )
    return await carry_out(request, Wish(Kind.DRAIN, tuple(body.services), options, "services", wait))


@router.post("/recover", response_model=RecoveryAnswer, responses=_ACCEPTED)
async def recover(request: Request, body: RecoverBody, wait: Wait = None) -> Response:
    """Restart what is broken of a service (all of it if nothing is), verify it, and tell its dependents."""
    return await _recover(request, body.service, body, wait)


@router.post("/debug/test-recovery", response_model=RecoveryTestAnswer, responses=_ACCEPTED, tags=["State"])
async def try_recovery(request: Request, body: RecoveryTestBody | None = None, wait: Wait = None) -> Response:
    """Say what a recovery of a service (of each, without a body) would do, and do nothing.

    With `execute` it is done, and the answer is that of `recover`.
    """
    service = body.service if body is not None else None
    if body is not None and body.execute and service is not None:
        return await _recover(request, service, body, wait)
    snapshot = (await site_of(request).read(caller_of(request))).snapshot()
    if service is None:
        chosen = snapshot.graph.in_start_order(snapshot.graph.services)
    else:
        _, unknown = resolve_targets(snapshot, (service,))
        if unknown is not None:
            raise InvalidInput.at("service", unknown, "GET services lists them")
        chosen = [service.partition("@")[0]]
    return reply(recovery_test_answer(snapshot, time.time(), chosen))


async def _recover(request: Request, service: str, body: RequestBody, wait: float | None) -> Response:
    """Recover, for the reason given or else the one that is plain to see."""
    reason = body.reason
    if not reason:
        snapshot = (await site_of(request).read(caller_of(request))).snapshot()
        reason = recovery_reason(snapshot, service.partition("@")[0], time.time())
    options = Options(timeout_seconds=body.timeout_seconds, reason=reason)
    return await carry_out(request, Wish(Kind.RECOVER, (service,), options, "service", wait))
