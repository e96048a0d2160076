"""Where the other services are: the discovery library of citadel, in this platform's words.

The library follows each service that is used, and what it knows stays in use while Consul does not answer: a platform
must not fall over because its catalog is away for a while (fail static). Services with HTTP are reached through its
transport (``peers``); the stores, which speak protocols of their own, are looked up here.
"""

from __future__ import annotations

from dataclasses import replace

import httpx

from citadel_consul.consul.address import parse_address
from citadel_consul.discovery import ConsulTransport, Instance, NoInstance, Resolver

from .failures import Unavailable
from .settings import Settings

FIRST_ANSWER_SECONDS = 2.0


def resolver_for(settings: Settings) -> Resolver:
    """A resolver that asks the Consul agent of the service's environment."""
    return Resolver(replace(parse_address(settings.consul_url), token=settings.consul_token or None))


def client_over(resolver: Resolver) -> httpx.AsyncClient:
    """A client to which ``http://<service>.consul/`` is an instance of that service that serves."""
    return httpx.AsyncClient(transport=ConsulTransport(resolver), timeout=5.0)


async def instances(resolver: Resolver, service: str) -> tuple[Instance, ...]:
    """Who serves ``service`` now. Raises Unavailable when nobody does, or nobody knows."""
    try:
        found = await resolver.instances(service, timeout_seconds=FIRST_ANSWER_SECONDS)
    except NoInstance as nobody:
        raise Unavailable(str(nobody)) from nobody
    if not found:
        raise Unavailable(f"Consul knows no usable instance of {service}")
    return found


async def instance(resolver: Resolver, service: str) -> Instance:
    """An instance of ``service`` to connect to. Raises Unavailable when there is none."""
    try:
        return await resolver.choose(service, timeout_seconds=FIRST_ANSWER_SECONDS)
    except NoInstance as nobody:
        raise Unavailable(str(nobody)) from nobody
