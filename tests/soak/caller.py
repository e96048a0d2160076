"""A client of the discovery library that lives long: ``python caller.py CONSUL SERVICE…`` until SIGTERM.

It asks each service in turn, resolves each, and shows on a port, which it prints, what it holds. It treats its memory
as citadel's own processes do, so that what grows is held by the library and not by the allocator.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import sys
from collections.abc import Sequence

import httpx

from citadel_consul.consul.address import parse_address
from citadel_consul.discovery import ConsulTransport, NoInstance, Resolver
from citadel_consul.telemetry.footprint import MEDIA_TYPE, exposition
from citadel_consul.telemetry.listener import address_of, bind
from citadel_consul.telemetry.memory import give_back_for_ever, limit_arenas, set_aside_what_stays
from citadel_consul.telemetry.responder import Page, Responder

PAUSE_SECONDS = 0.1
DEADLINE_SECONDS = 2.0


async def call(consul: str, services: Sequence[str]) -> None:
    """Ask for ever; that a service is away for a while is what is being tried."""
    async with Resolver(parse_address(consul)) as resolver:
        client = httpx.AsyncClient(transport=ConsulTransport(resolver), timeout=DEADLINE_SECONDS)
        async with client:
            for service in itertools.cycle(services):
                with contextlib.suppress(httpx.HTTPError):
                    await client.get(f"http://{service}.consul/")
                with contextlib.suppress(NoInstance):
                    await resolver.instances(service)
                await asyncio.sleep(PAUSE_SECONDS)


async def footprint() -> Page:
    return Page(exposition(), MEDIA_TYPE)


async def main(consul: str, services: Sequence[str]) -> None:
    with bind("127.0.0.1", 0, setting="soak", flag="soak") as listener:
        print(address_of(listener, "127.0.0.1"), flush=True)
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(Responder({"/metrics": footprint}).serve(listener))
            calling = group.create_task(call(consul, services))
            giving_back = group.create_task(give_back_for_ever())
            set_aside_what_stays()
            ended = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
            await ended.wait()
            serving.cancel()
            calling.cancel()
            giving_back.cancel()


if __name__ == "__main__":
    limit_arenas()
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
