"""What a template can see: the node, the service, the stack and the interpreter."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from citadel_consul.core.model import ServiceSpec

KNOWN_NAMES = "node.name, node.address, service.name, service.type, stack, python, data_dir, consul_http_addr"


@dataclass(frozen=True, slots=True)
class NodeContext:
    """The node for which a spec is rendered.

    ``name`` is the node's name in Consul, ``address`` the one its services are reached at, ``stack`` the stack's
    name, and ``python`` the interpreter that ``{{ python }}`` stands for (the running one by default, so that a
    service written in Python finds the environment that citadel is installed in). ``data_root`` is the folder in
    which each service has a folder of its own (``{{ data_dir }}``; the service makes it), and ``consul_http_addr``
    is what ``CONSUL_HTTP_ADDR`` should be for a service that speaks to Consul.
    """

    name: str
    address: str
    stack: str
    python: str = sys.executable
    data_root: str = "/var/lib/citadel/data"
    consul_http_addr: str = "127.0.0.1:8500"


@dataclass(frozen=True, slots=True)
class NodeVariable:
    """``node`` in a template; written alone it is the node's name."""

    name: str
    address: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class ServiceVariable:
    """``service`` in a template; written alone it is the service's name."""

    name: str
    type: str

    def __str__(self) -> str:
        return self.name


def variables(spec: ServiceSpec, context: NodeContext) -> Mapping[str, object]:
    """The names that every template of this service on this node can use."""
    return {
        "node": NodeVariable(context.name, context.address),
        "service": ServiceVariable(spec.name, spec.type),
        "stack": context.stack,
        "python": context.python,
        "data_dir": f"{context.data_root}/{spec.name}",
        "consul_http_addr": context.consul_http_addr,
    }
