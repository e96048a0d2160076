"""python-consul2's API over our transport."""

from __future__ import annotations

from consul import base

from citadel_consul.consul.transport import HttpxTransport


class API(base.Consul):  # type: ignore[misc]  # python-consul2 has no types
    """python-consul2's nouns (``kv``, ``session``, ``agent``, …) for one token, without its constructor.

    That constructor reads ``CONSUL_HTTP_ADDR`` by splitting it on ':' (an IPv6 address or a unix socket makes it
    raise) and lets ``CONSUL_HTTP_TOKEN`` win over the token it is given. Address and token are settled before
    citadel gets here, so the environment must not have a second say. The nouns that are left out warn of their own age
    when they are made (``acl``, ``discovery_chain``) or are Consul's service mesh.
    """

    def __init__(self, transport: HttpxTransport, token: str | None) -> None:
        self.http = transport
        self.scheme = transport.address.scheme
        self.dc = transport.address.datacenter
        self.consistency = "default"
        self.token = token
        self.agent = base.Consul.Agent(self)
        self.catalog = base.Consul.Catalog(self)
        self.coordinate = base.Consul.Coordinate(self)
        self.event = base.Consul.Event(self)
        self.health = base.Consul.Health(self)
        self.kv = base.Consul.KV(self)
        self.operator = base.Consul.Operator(self)
        self.query = base.Consul.Query(self)
        self.session = base.Consul.Session(self)
        self.snapshot = base.Consul.Snapshot(self)
        self.status = base.Consul.Status(self)
        self.txn = base.Consul.Txn(self)
