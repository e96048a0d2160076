"""From a request to its result: refuse at once what would be refused, write the operation, wait for its end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from fastapi import Request, Response

from citadel_consul.api.problems import DEPENDENTS, problem, problem_of
from citadel_consul.api.replies import accepted, reply, url_of
from citadel_consul.api.site import caller_of, name_of, site_of
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.answers.results import result_of
from citadel_consul.core.operation import Kind, Operation, OperationState, Options
from citadel_consul.core.plan import plan, resolve_targets, running_dependents
from citadel_consul.core.snapshot import Defaults, Snapshot
from citadel_consul.errors import ConsulUnavailable, InvalidInput, NoLeader, Problem, Refused
from citadel_consul.store.requests import submit, wait_for_end

LEADER_SECONDS = 15.0
"""How long an operation may stay unnoticed before it is said that nobody leads."""

MARGIN_SECONDS = 5.0
"""How much longer than the operation may take its result is waited for, so that a time-out is told by its result."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for. ``place`` is the field of the body that names the targets."""

    kind: Kind
    targets: tuple[str, ...]
    options: Options
    place: str
    wait_seconds: float | None


async def carry_out(request: Request, wish: Wish) -> Response:
    """Request an operation, and answer with its result, or with 202 if that takes too long."""
    site, client = site_of(request), caller_of(request)
    snapshot = (await site.read(client)).snapshot()
    refusal = _refuse_early(snapshot, wish, request.url.path)
    if refusal is not None:
        return refusal
    operation = await submit(client, site.keys, wish.kind, wish.targets, wish.options, requested_by=name_of(request))
    with site.place_to_wait() as free:
        if not free or wish.wait_seconds == 0:
            return accepted(operation)
        return await _result(request, client, operation, wish)


def operation_seconds(kind: Kind, options: Options, defaults: Defaults) -> float:
    """How long an operation may take: its own option, or the setting for its kind."""
    if options.timeout_seconds is not None:
        return options.timeout_seconds
    if kind is Kind.STARTUP:
        return defaults.startup_timeout_seconds
    if kind in (Kind.SHUTDOWN, Kind.DRAIN):
        return defaults.shutdown_timeout_seconds
    return defaults.startup_timeout_seconds + defaults.shutdown_timeout_seconds


def _refuse_early(snapshot: Snapshot, wish: Wish, path: str) -> Response | None:
    """Say at once what the leader would refuse; it looks again when the operation begins. Raises InvalidInput for
    services that do not exist, Refused for a stack without any."""
    if not snapshot.specs:
        raise Refused(f"stack {snapshot.stack!r} has no services: 'citadel apply FILE' writes them")
    unknown = [p for n, t in enumerate(wish.targets) if (p := _unknown(snapshot, wish, n, t)) is not None]
    if unknown:
        raise InvalidInput(unknown)
    operation = Operation(id="", kind=wish.kind, targets=wish.targets, options=wish.options)
    refusal = plan(snapshot, operation).refusal
    if refusal is None:
        return None
    targets, _ = resolve_targets(snapshot, wish.targets)
    dependents = running_dependents(snapshot, targets)
    if wish.kind is not Kind.SHUTDOWN or not dependents:
        raise Refused(refusal)
    names = ", ".join(sorted({instance.service for instance in targets}))
    detail = f'stopping {names} would take down {", ".join(dependents)}; ask for it with "cascade": true'
    return problem(DEPENDENTS, detail, path, members={"dependents": list(dependents)})


def _unknown(snapshot: Snapshot, wish: Wish, position: int, target: str) -> Problem | None:
    _, refusal = resolve_targets(snapshot, (target,))
    if refusal is None:
        return None
    place = f"{wish.place}[{position}]" if wish.place == "services" else wish.place
    return Problem(place, refusal, "GET services lists them")


async def _result(request: Request, client: ConsulClient, operation: Operation, wish: Wish) -> Response:
    site = site_of(request)
    seconds = wish.wait_seconds
    if seconds is None:
        limit = operation_seconds(wish.kind, wish.options, site.orchestrator.config.defaults)
        seconds = limit + MARGIN_SECONDS
    ended = await _end_of(request, client, operation, seconds)
    location = {"operation": url_of(operation.id)}
    if isinstance(ended, NoLeader):
        detail = f"{ended}; it stays requested until it is cancelled (DELETE {url_of(operation.id)})"
        return problem_of(NoLeader(detail), request.url.path, members=location)
    if ended is None or not ended.ended:
        return accepted(ended or operation)
    if ended.state is OperationState.FAILED and not ended.step_count:
        return problem_of(Refused(ended.detail), request.url.path, members=location)
    try:
        state = await site.read(client)
    except ConsulUnavailable:
        return accepted(ended)
    return reply(result_of(state.snapshot(), ended, time.time()))


async def _end_of(
    request: Request, client: ConsulClient, operation: Operation, seconds: float
) -> Operation | NoLeader | None:
    """The operation when it has ended or the time is up; NoLeader if nobody takes it; None if it cannot be told (Consul
    went away after it was written, or the client did)."""

    async def wait() -> Operation | NoLeader | None:
        keys = site_of(request).keys
        try:
            return await wait_for_end(
                client, keys, operation.id, timeout_seconds=seconds, leader_seconds=LEADER_SECONDS
            )
        except NoLeader as error:
            return error
        except ConsulUnavailable:
            return None

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(wait())
        leaving = group.create_task(_until_gone(request))
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        waiting.cancel()
    return waiting.result() if not waiting.cancelled() else None


async def _until_gone(request: Request) -> None:
    """Return when the client has closed its connection: nobody waits for the answer any more."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
