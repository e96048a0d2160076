"""What a host name below ``.consul`` stands for; the names are those of Consul's DNS, so that a URL works with both.

==============================  =======================================================
name                            is
==============================  =======================================================
``web.service.consul``          the service ``web``
``canary.web.service.consul``   its instances with the tag ``canary``
``web.consul``                  the service ``web``, in short (DNS does not know this)
anything else                   no service: a host like any other
==============================  =======================================================
"""

from __future__ import annotations

from typing import Final, NamedTuple

DOMAIN: Final = "consul"


class ServiceName(NamedTuple):
    """A service, or those of its instances that have a tag."""

    service: str
    tag: str | None = None

    def __str__(self) -> str:
        return self.service if self.tag is None else f"{self.tag}.{self.service}"


def service_named(host: str, domain: str = DOMAIN) -> ServiceName | None:
    """The service that ``host`` means; None if it means none."""
    suffix = f".{domain}"
    if not host.endswith(suffix):
        return None
    match host.removesuffix(suffix).split("."):
        case [service] | [service, "service"] if service:
            return ServiceName(service)
        case [tag, service, "service"] if tag and service:
            return ServiceName(service, tag)
        case _:
            return None
