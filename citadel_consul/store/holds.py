"""Holds in the KV store: ``holds/service/<name>``, ``holds/node/<name>`` and ``holds/stack``.

They are keys of their own, written with the operator's token, so that ``consul kv put`` can set one as well: an empty
value is a hold without a reason or an end.
"""

from __future__ import annotations

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.core.snapshot import Hold
from citadel_consul.store import documents
from citadel_consul.store.documents import UndecodableError
from citadel_consul.store.keys import Keys

STACK = "stack"
NAMED = ("service", "node")


def decode_hold(keys: Keys, entry: KVEntry) -> Hold:
    """The hold that a key holds; raises UndecodableError if its scope is none."""
    scope, _, name = entry.key.removeprefix(keys.holds).partition("/")
    if (scope in NAMED and name) or (scope == STACK and not name):
        return documents.HOLD.decode(entry.value or b"{}", scope=scope, name=name)
    raise UndecodableError("is not of the form holds/service/<name>, holds/node/<name> or holds/stack")


async def write_hold(client: ConsulClient, keys: Keys, hold: Hold) -> None:
    """Put ``hold`` in force, in the place of one on the same that may be there."""
    await client.kv_put(keys.hold(hold.scope, hold.name), documents.HOLD.encode(hold))


async def remove_hold(client: ConsulClient, keys: Keys, scope: str, name: str) -> bool:
    """Take a hold back; returns whether there was one."""
    key = keys.hold(scope, name)
    if await client.kv_get(key) is None:
        return False
    await client.kv_delete(key)
    return True
