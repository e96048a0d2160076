"""Reading and writing keys."""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from citadel_consul.consul.api import Indexed, blocking, document, index_of
from citadel_consul.consul.transaction import Transactions, TxnOp, lock, unlock
from citadel_consul.consul.transport import Response
from citadel_consul.errors import Conflict, ConsulRefused, ConsulUnavailable

MAX_VALUE_BYTES: Final = 512 * 1024


@dataclass(frozen=True, slots=True)
class KVEntry:
    """One key. ``session`` is the holder of its lock, ``modify_index`` the raft index of its last write."""

    key: str
    value: bytes
    modify_index: int
    create_index: int
    lock_index: int
    flags: int
    session: str | None


Known = Mapping[str, KVEntry]
_NOTHING_KNOWN: Final[Known] = {}


class KV(Transactions):
    """Methods on keys. Keys have no leading slash and no empty, ``.`` or ``..`` segment (``ValueError``)."""

    async def kv_get(self, key: str, *, consistent: bool = False) -> KVEntry | None:
        """The entry at ``key``, or ``None`` if there is none."""
        return (await self.kv_read(key, consistent=consistent)).value

    async def kv_read(
        self, key: str, index: int | None = None, wait_seconds: float | None = None, *, consistent: bool = False
    ) -> Indexed[KVEntry | None]:
        """The entry at ``key`` with the index to wait past; with ``index``, a blocking query for something newer."""
        params = _read_params(index, wait_seconds, consistent)
        entries = await self._read(_entries_from(_NOTHING_KNOWN), _path(key), params)
        return Indexed(entries.index, entries.value[0] if entries.value else None)

    async def kv_list(
        self,
        prefix: str,
        index: int | None = None,
        wait_seconds: float | None = None,
        *,
        consistent: bool = False,
        known: Known = _NOTHING_KNOWN,
    ) -> Indexed[tuple[KVEntry, ...]]:
        """Every entry below ``prefix``, in the order of their keys; with ``index``, a blocking query.

        ``known`` holds entries of an earlier answer by key. The one that did not move since is given back as the same
        object, so a watch of a large prefix decodes only what changed, and its caller can tell by ``is``.
        After the index went backwards give none. Consul answers with nothing, and no error, where the token may not
        read.
        """
        params = [("recurse", "1"), *_read_params(index, wait_seconds, consistent)]
        return await self._read(_entries_from(known), _path(prefix), params)

    async def kv_keys(self, prefix: str) -> tuple[str, ...]:
        """The keys below ``prefix``, without their values."""
        return await self._read(_keys, _path(prefix), [("keys", "1")])

    async def kv_put(
        self,
        key: str,
        value: bytes,
        *,
        cas: int | None = None,
        acquire: str | None = None,
        release: str | None = None,
    ) -> bool:
        """Write ``value``; whether it was written.

        ``cas`` writes only if the key's ``modify_index`` is that (0: if there is no such key). ``acquire`` and
        ``release`` take and give back the lock of the key for a session; ``False`` if another one has it, if the
        session is gone or if a lock delay runs. At most one of the three can be given.
        """
        if sum(option is not None for option in (cas, acquire, release)) > 1:
            raise ValueError("cas, acquire and release exclude each other")
        if len(value) > MAX_VALUE_BYTES:
            raise ConsulRefused(f"{key}: {len(value)} bytes, and Consul takes {MAX_VALUE_BYTES} at most", 413)
        check_key(key)
        # A session that is gone makes the plain PUT fail with a 500, as a Consul without a leader does.
        if acquire is not None:
            return await self._took_effect(lock(key, value, acquire))
        if release is not None:
            return await self._took_effect(unlock(key, value, release))
        return _verdict(await self._api.kv.put(key, value, cas=cas))

    async def kv_delete(self, key: str, *, cas: int | None = None) -> bool:
        """Delete ``key``; ``False`` only if ``cas`` is not its ``modify_index``. A key that is not there is fine."""
        check_key(key)
        return _verdict(await self._api.kv.delete(key, cas=cas))

    async def kv_delete_prefix(self, prefix: str) -> None:
        """Delete every key below ``prefix``, which cannot be empty: that would be the whole store."""
        check_key(prefix)
        _verdict(await self._api.kv.delete(prefix, recurse=True))

    async def _took_effect(self, operation: TxnOp) -> bool:
        try:
            await self.transact([operation])
        except Conflict:
            return False
        return True


def check_key(key: str) -> None:
    """Refuse keys that mean another one once they are part of a URL (``ValueError``)."""
    segments = key.removesuffix("/").split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError(f"not a key: {key!r}")


def _verdict(answer: object) -> bool:
    if isinstance(answer, bool):
        return answer
    raise ConsulUnavailable("a write was answered with neither true nor false, so not by Consul")


def _path(key: str) -> str:
    if key:
        check_key(key)
    return f"/v1/kv/{key}"


def _read_params(index: int | None, wait_seconds: float | None, consistent: bool) -> list[tuple[str, object]]:
    params = blocking(index, wait_seconds)
    if consistent:
        params.append(("consistent", "1"))
    return params


def _entries_from(known: Known) -> Callable[[Response], Indexed[tuple[KVEntry, ...]]]:
    def decode(response: Response) -> Indexed[tuple[KVEntry, ...]]:
        # A 404 without an index is not Consul saying 'no such key' but another server saying 'no such page'.
        index = index_of(response)
        if response.code == 404:
            return Indexed(index, ())
        return Indexed(index, tuple([_entry(item, known) for item in document(response)]))

    return decode


def _entry(item: Mapping[str, Any], known: Known) -> KVEntry:
    earlier = known.get(item["Key"])
    if earlier is not None and earlier.modify_index == item["ModifyIndex"]:
        return earlier
    return KVEntry(
        key=item["Key"],
        value=a2b_base64(item["Value"] or b""),
        modify_index=item["ModifyIndex"],
        create_index=item["CreateIndex"],
        lock_index=item["LockIndex"],
        flags=item["Flags"],
        session=item.get("Session") or None,
    )


def _keys(response: Response) -> tuple[str, ...]:
    index_of(response)
    return () if response.code == 404 else tuple(document(response))
