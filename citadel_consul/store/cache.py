"""What is known of one KV prefix: fed by a watch and by our own writes, whichever is newer.

A watch returns the whole prefix at each change, so only entries whose ModifyIndex moved are decoded. Our own writes
are put in with the index that the transaction returned: the next decision sees them without waiting for the watch,
and an answer of the watch that is older than our write cannot undo it. When the index goes backwards (a snapshot was
restored, the data is gone) ages say nothing any more, and what Consul answers holds.

A value that cannot be decoded is a fault, and the last good value stays: a slip of the hand in ``consul kv put`` must
not take a service out of the stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from citadel_consul.consul.kv import KVEntry
from citadel_consul.core.snapshot import Fault
from citadel_consul.store.documents import UndecodableError

T = TypeVar("T")


class PrefixCache(Generic[T]):
    """The decoded values of one prefix, by key."""

    def __init__(self, decode: Callable[[KVEntry], T]) -> None:
        self._decode = decode
        self._indexes: dict[str, int] = {}
        self._created: dict[str, int] = {}
        self._sessions: dict[str, str | None] = {}
        self._values: dict[str, T] = {}
        self._faults: dict[str, Fault] = {}
        self._deleted: dict[str, int] = {}

    @property
    def values(self) -> Mapping[str, T]:
        return self._values

    @property
    def faults(self) -> Iterable[Fault]:
        return self._faults.values()

    def index_of(self, key: str) -> int:
        """The ModifyIndex last seen of ``key``; 0 if it does not exist (what compare-and-set calls 'absent')."""
        return self._indexes.get(key, 0)

    def created(self, key: str) -> int:
        """The CreateIndex of ``key``: its age."""
        return self._created.get(key, 0)

    def session_of(self, key: str) -> str | None:
        """The session that holds a lock on ``key``."""
        return self._sessions.get(key)

    def merge(self, index: int, entries: Iterable[KVEntry], *, restarted: bool = False) -> frozenset[str]:
        """Take in a listing that is as of ``index``; returns the keys that changed.

        ``restarted`` says that it holds even where it looks older than what is known, because the index went
        backwards or because what is known was found to be wrong.
        """
        if restarted:
            self._indexes = dict.fromkeys(self._indexes, 0)
            self._deleted.clear()
        changed: set[str] = set()
        seen: set[str] = set()
        for entry in entries:
            if entry.key.endswith("/"):  # a folder of the Consul UI, or one that keeps a prefix from being empty
                continue
            seen.add(entry.key)
            if self._is_news(entry, index):
                changed.add(entry.key)
                self._take(entry)
        for key in [k for k, at in self._indexes.items() if k not in seen and at <= index]:
            changed.add(key)
            self._forget(key)
        self._deleted = {key: at for key, at in self._deleted.items() if at > index}
        return frozenset(changed)

    def written(self, entry: KVEntry, value: T) -> None:
        """Take in what we wrote ourselves, with the index that the transaction returned."""
        if entry.modify_index >= self._indexes.get(entry.key, 0):
            self._note(entry)
            self._values[entry.key] = value
            self._faults.pop(entry.key, None)

    def refresh(self, entry: KVEntry) -> None:
        """Take in one entry that was read by itself, and holds as it was read."""
        if entry.modify_index != self._indexes.get(entry.key):
            self._take(entry)

    def deleted(self, key: str, index: int) -> None:
        """Take in a deletion of our own, as of ``index``."""
        self._forget(key)
        self._deleted[key] = index

    def _is_news(self, entry: KVEntry, index: int) -> bool:
        if entry.modify_index <= self._deleted.get(entry.key, 0):
            return False
        known = self._indexes.get(entry.key)
        if known is None or entry.modify_index > known:
            return True
        if entry.modify_index < known <= index:  # the listing is newer than what we know: history was rewritten
            return True
        return entry.modify_index == known and entry.session != self._sessions.get(entry.key)

    def _take(self, entry: KVEntry) -> None:
        self._note(entry)
        try:
            self._values[entry.key] = self._decode(entry)
            self._faults.pop(entry.key, None)
        except UndecodableError as error:
            self._faults[entry.key] = Fault(entry.key, str(error))

    def _note(self, entry: KVEntry) -> None:
        self._indexes[entry.key] = entry.modify_index
        self._created[entry.key] = entry.create_index or self._created.get(entry.key, entry.modify_index)
        self._sessions[entry.key] = entry.session

    def _forget(self, key: str) -> None:
        for table in (self._indexes, self._created, self._sessions, self._values, self._faults):
            table.pop(key, None)
