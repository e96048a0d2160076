"""The mark of a stack that ``citadel dev`` runs: in a Consul of its own, on one machine, for trying things out.

What asks before it disturbs a stack need not ask here.
"""

from __future__ import annotations

from dataclasses import dataclass

from citadel_consul.consul.client import ConsulClient
from citadel_consul.store.documents import Document, UndecodableError
from citadel_consul.store.keys import Keys


@dataclass(frozen=True, slots=True)
class DevMark:
    """Which stack file it was started with, as an absolute path."""

    file: str


DEV_MARK = Document(DevMark)


async def write_dev_mark(client: ConsulClient, keys: Keys, mark: DevMark) -> None:
    """Mark a stack as one of ``citadel dev``."""
    await client.kv_put(keys.dev, DEV_MARK.encode(mark))


async def read_dev_mark(client: ConsulClient, keys: Keys) -> DevMark | None:
    """The mark of a stack, if it has one."""
    entry = await client.kv_get(keys.dev)
    if entry is None:
        return None
    try:
        return DEV_MARK.decode(entry.value)
    except UndecodableError:
        return None
