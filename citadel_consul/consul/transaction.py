"""Transactions: all of it or nothing, and the fence of every write that needs one.

Consul reports which operations of a refused transaction failed by their place in the list (``OpIndex``). Which kind of
refusal it was follows from the operation at that place: a failed ``check-session`` is a lost lock, anything else a lost
race. The one thing that only the text tells is a denial by ACL, since a transaction has no other field for it; Consul's
own HTTP layer tells its 403s in the same way.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from citadel_consul.consul.api import Endpoint, document
from citadel_consul.consul.transport import Response
from citadel_consul.errors import CitadelError, Conflict, ConsulRefused, LeadershipLost, PermissionDenied

MAX_OPERATIONS: Final = 64
MAX_BODY_BYTES: Final = 512 * 1024
_DENIED: Final = "Permission denied"


@dataclass(frozen=True, slots=True)
class TxnOp:
    """One operation. Made by the functions below, which know the fields that each verb needs."""

    verb: str
    key: str
    value: bytes | None = None
    index: int | None = None
    session: str | None = None

    def document(self) -> dict[str, Any]:
        """The operation as the API takes it."""
        fields: dict[str, Any] = {"Verb": self.verb, "Key": self.key}
        if self.value is not None:
            fields["Value"] = b64encode(self.value).decode("ascii")
        if self.index is not None:
            fields["Index"] = self.index
        if self.session is not None:
            fields["Session"] = self.session
        return {"KV": fields}


def check_session(key: str, session: str) -> TxnOp:
    """Fail unless ``session`` holds the lock of ``key``: the fence."""
    return TxnOp("check-session", key, session=session)


def check_index(key: str, index: int) -> TxnOp:
    """Fail unless the key's ``modify_index`` is ``index``."""
    return TxnOp("check-index", key, index=index)


def check_not_exists(key: str) -> TxnOp:
    """Fail if there is such a key."""
    return TxnOp("check-not-exists", key)


def get(key: str) -> TxnOp:
    """Read the key; fail if there is none."""
    return TxnOp("get", key)


def set_key(key: str, value: bytes) -> TxnOp:
    """Write the key whatever it holds."""
    return TxnOp("set", key, value)


def cas(key: str, value: bytes, index: int) -> TxnOp:
    """Write the key if its ``modify_index`` is ``index`` (0: if there is no such key)."""
    return TxnOp("cas", key, value, index)


def delete(key: str) -> TxnOp:
    """Delete the key; fine if there is none."""
    return TxnOp("delete", key)


def delete_cas(key: str, index: int) -> TxnOp:
    """Delete the key if its ``modify_index`` is ``index``; fine if there is none."""
    return TxnOp("delete-cas", key, index=index)


def delete_tree(prefix: str) -> TxnOp:
    """Delete every key below ``prefix``."""
    return TxnOp("delete-tree", prefix)


def lock(key: str, value: bytes, session: str) -> TxnOp:
    """Write the key and take its lock. Fails if another session has it; a session that has it already has it still."""
    return TxnOp("lock", key, value, session=session)


def unlock(key: str, value: bytes, session: str) -> TxnOp:
    """Write the key and give its lock back; fails unless ``session`` has it."""
    return TxnOp("unlock", key, value, session=session)


@dataclass(frozen=True, slots=True)
class TxnEntry:
    """What one operation left behind. ``value`` is only there for ``get``."""

    key: str
    modify_index: int
    lock_index: int
    session: str | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class TxnResult:
    """The entries of a transaction that took effect, in the order of its operations; deletions leave none."""

    entries: tuple[TxnEntry, ...]

    def entry(self, key: str) -> TxnEntry:
        """The last entry of ``key``; ``KeyError`` if no operation left one."""
        for entry in reversed(self.entries):
            if entry.key == key:
                return entry
        raise KeyError(key)


class Transactions(Endpoint):
    """The method that writes several keys at once."""

    async def transact(self, operations: Sequence[TxnOp]) -> TxnResult:
        """Carry out all ``operations`` or none.

        Raises ``LeadershipLost`` if a ``check_session`` failed, ``PermissionDenied`` if the token may not,
        ``Conflict`` with the keys if another writer was faster (for ``lock`` also if the session is gone or a lock
        delay runs), ``ConsulRefused`` (413) if the whole is over 512 KB as sent (base64 makes values a third larger),
        ``ValueError`` for more than 64 operations, none, or an empty key. After ``ConsulUnavailable`` the transaction
        may have taken effect all the same.
        """
        if not 0 < len(operations) <= MAX_OPERATIONS:
            raise ValueError(f"a transaction has 1 to {MAX_OPERATIONS} operations, not {len(operations)}")
        if not all(operation.key for operation in operations):
            raise ValueError("an operation of a transaction needs a key")
        body = orjson.dumps([operation.document() for operation in operations])
        if len(body) > MAX_BODY_BYTES:
            raise ConsulRefused(f"a transaction of {len(body)} bytes, and Consul takes {MAX_BODY_BYTES} at most", 413)

        def decode(response: Response) -> TxnResult | CitadelError:
            if response.code == 409:
                return _refusal(operations, orjson.loads(response.content)["Errors"])
            return TxnResult(tuple([_entry(result["KV"]) for result in document(response)["Results"] or ()]))

        outcome = await self._write(decode, "/v1/txn", body=body)
        if isinstance(outcome, CitadelError):
            raise outcome
        return outcome


def _entry(item: Mapping[str, Any]) -> TxnEntry:
    value = item.get("Value")
    return TxnEntry(
        key=item["Key"],
        modify_index=item["ModifyIndex"],
        lock_index=item["LockIndex"],
        session=item.get("Session") or None,
        value=None if value is None else b64decode(value),
    )


def _refusal(operations: Sequence[TxnOp], failures: Sequence[Mapping[str, Any]]) -> CitadelError:
    failed = [operations[failure["OpIndex"]] for failure in failures]
    reasons = "; ".join(failure["What"] for failure in failures)
    denied = [
        operation for operation, failure in zip(failed, failures, strict=True) if failure["What"].startswith(_DENIED)
    ]
    if denied:
        return PermissionDenied(f"not allowed: {_named(denied)} ({reasons})")
    lost = [operation for operation in failed if operation.verb == "check-session"]
    if lost:
        return LeadershipLost(f"another session has the lock of {_keys(lost)} ({reasons})")
    return Conflict(f"changed in between: {_keys(failed)} ({reasons})")


def _keys(operations: Sequence[TxnOp]) -> str:
    return ", ".join(dict.fromkeys(operation.key for operation in operations))


def _named(operations: Sequence[TxnOp]) -> str:
    return ", ".join(dict.fromkeys(f"{operation.verb} {operation.key}" for operation in operations))
