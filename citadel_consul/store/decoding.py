"""What an entry of the KV store says, decoded and held against its key: value and key have to agree.

Each raises :class:`~citadel_consul.store.documents.UndecodableError`, with what is wrong.
"""

from __future__ import annotations

from citadel_consul.consul.kv import KVEntry
from citadel_consul.core.incident import Incident
from citadel_consul.core.model import Edge, ServiceSpec
from citadel_consul.core.operation import Operation
from citadel_consul.core.stats import ServiceStats
from citadel_consul.store import documents
from citadel_consul.store.documents import UndecodableError
from citadel_consul.store.keys import Keys


def decode_spec(keys: Keys, entry: KVEntry) -> ServiceSpec:
    """The spec at ``specs/<service>``."""
    spec = documents.SPEC.decode(entry.value)
    if entry.key != keys.spec(spec.name):
        raise UndecodableError(f"holds the spec of {spec.name!r}: key and name have to agree")
    return spec


def decode_edge(keys: Keys, entry: KVEntry) -> Edge:
    """The edge at ``edges/<service>/<dependency>``; an empty value is one of defaults."""
    parts = entry.key.removeprefix(keys.edges).split("/")
    if len(parts) != 2 or not all(parts):
        raise UndecodableError("is not of the form edges/<service>/<dependency>")
    return documents.EDGE.decode(entry.value or b"{}", service=parts[0], dependency=parts[1])


def decode_incident(keys: Keys, entry: KVEntry) -> Incident:
    """The incident at ``incidents/<service>``."""
    return documents.INCIDENT.decode(entry.value, service=entry.key.removeprefix(keys.incidents))


def decode_stats(keys: Keys, entry: KVEntry) -> ServiceStats:
    """What is counted of a service, at ``stats/<service>``."""
    return documents.STATS.decode(entry.value, service=entry.key.removeprefix(keys.stats))


def decode_operation(keys: Keys, entry: KVEntry) -> Operation | documents.Cancellation:
    """The head of an operation, at ``operations/<id>``, or the request to cancel it that lies below."""
    if entry.key.endswith("/cancel"):
        return documents.CANCELLATION.decode(entry.value)
    operation = documents.OPERATION.decode(entry.value)
    if entry.key != keys.operation(operation.id):
        raise UndecodableError(f"holds operation {operation.id!r}: key and id have to agree")
    return operation
