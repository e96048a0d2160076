"""Service discovery for services and their clients: the public library.

    from citadel_consul.discovery import ConsulTransport, Registration

========================  ==========================================================================================
``Registration``          registers the service that uses it, feeds its check, and drains it when it is told to stop
``ConsulTransport``       sends ``http://<service>.consul/…`` of ``httpx.AsyncClient`` to an instance that serves
``SyncConsulTransport``   the same for ``httpx.Client``
``Weights``               the share of requests that an instance takes
``Resolver``              the instances of a service, for other protocols
``Statistics``            what a resolver's watches have cost
``Instance``              one of them
``NoInstance``            raised when nobody serves; an ``httpx.ConnectError`` and a ``TemporaryError``
``DeadlineExceeded``      raised when a request's deadline is over; an ``httpx.TimeoutException``
========================  ==========================================================================================

Each name is imported when it is first used, so that a client does not pay for rendering templates.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from citadel_consul.consul.instances import Instance
    from citadel_consul.discovery.advertisement import Weights
    from citadel_consul.discovery.failures import DeadlineExceeded, NoInstance
    from citadel_consul.discovery.registration import Registration
    from citadel_consul.discovery.resolver import Resolver
    from citadel_consul.discovery.statistics import Statistics
    from citadel_consul.discovery.sync_transport import SyncConsulTransport
    from citadel_consul.discovery.transport import ConsulTransport

__all__ = [
    "ConsulTransport",
    "DeadlineExceeded",
    "Instance",
    "NoInstance",
    "Registration",
    "Resolver",
    "Statistics",
    "SyncConsulTransport",
    "Weights",
]

_MODULES = {
    "ConsulTransport": "citadel_consul.discovery.transport",
    "DeadlineExceeded": "citadel_consul.discovery.failures",
    "Instance": "citadel_consul.consul.instances",
    "NoInstance": "citadel_consul.discovery.failures",
    "Registration": "citadel_consul.discovery.registration",
    "Resolver": "citadel_consul.discovery.resolver",
    "Statistics": "citadel_consul.discovery.statistics",
    "SyncConsulTransport": "citadel_consul.discovery.sync_transport",
    "Weights": "citadel_consul.discovery.advertisement",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
