"""All examinations of ``citadel doctor``, in the order in which faults should be mended."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any, Final

from citadel_consul.api.reading import read_stack
from citadel_consul.core.finding import Report
from citadel_consul.doctor.checks import examine_checks
from citadel_consul.doctor.control import examine_clock, examine_consul, examine_stack, examine_token
from citadel_consul.doctor.forwarding import examine_dns
from citadel_consul.doctor.registrations import examine_registrations
from citadel_consul.doctor.site import Site
from citadel_consul.doctor.units import examine_units
from citadel_consul.errors import ConsulRefused, ConsulUnavailable
from citadel_consul.store.state import StackState

AREAS: Final = ("consul", "token", "clock", "stack", "registrations", "checks", "units", "dns")
"""What is examined; each can be left out."""


async def examine(site: Site, skip: Collection[str] = (), *, watch: bool = True) -> tuple[Report, ...]:
    """Examine everything but what is in ``skip``; ``watch`` takes the time to see each check run again.

    What the token may not look at is told in its report. Raises ConsulUnavailable.
    """
    state, refusal = await _state(site)
    tasks: list[asyncio.Task[Report]] = []
    try:
        async with asyncio.TaskGroup() as group:
            for area in AREAS:
                if area not in skip:
                    work = _one(area, _examination(area, site, state, refusal, watch=watch))
                    tasks.append(group.create_task(work))
    except ExceptionGroup as failures:
        absent, others = failures.split(ConsulUnavailable)
        if absent is None or others is not None:
            raise
        # They fail side by side for want of the same Consul.
        raise ConsulUnavailable(str(absent.exceptions[0])) from failures
    return tuple(task.result() for task in tasks)


async def _state(site: Site) -> tuple[StackState | None, str]:
    try:
        return await read_stack(site.client, site.stack, site.defaults), ""
    except ConsulRefused as error:
        return None, str(error)


async def _examination(area: str, site: Site, state: StackState | None, refusal: str, *, watch: bool) -> Report:
    if area in ("stack", "checks", "units") and state is None:
        return Report(area, unknown=refusal)
    if area == "stack" and state is not None:
        return examine_stack(state)
    if area == "checks" and state is not None:
        return await examine_checks(site, state, watch=watch)
    if area == "units" and state is not None:
        return await examine_units(site, state)
    if area == "clock":
        return await examine_clock(site, state)
    simple = {
        "consul": examine_consul,
        "token": examine_token,
        "registrations": examine_registrations,
        "dns": examine_dns,
    }
    return await simple[area](site)


async def _one(area: str, examination: Coroutine[Any, Any, Report]) -> Report:
    """The report, or why there is none: one refusal must not hide what the others found."""
    try:
        return await examination
    except ConsulRefused as error:
        return Report(area, unknown=str(error))
