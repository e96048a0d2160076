"""What Consul's servers agree on: keys, sessions, nodes, services, checks, and one index over all of it.

The rules are Consul's own, each with the place of its documentation or the measurement that it rests on; the tests of
the client (``tests/consul_client``) are what this is held against. Nothing here knows of time or of the network.
"""

from __future__ import annotations

import itertools
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

CRITICAL = "critical"


@dataclass(slots=True)
class Entry:
    """A key."""

    key: str
    value: str
    create_index: int
    modify_index: int
    lock_index: int = 0
    flags: int = 0
    session: str = ""

    def document(self, *, with_value: bool = True) -> dict[str, Any]:
        document: dict[str, Any] = {
            "LockIndex": self.lock_index,
            "Key": self.key,
            "Flags": self.flags,
            "Value": (self.value or None) if with_value else None,
            "CreateIndex": self.create_index,
            "ModifyIndex": self.modify_index,
        }
        if self.session:
            document["Session"] = self.session
        return document


@dataclass(slots=True)
class Session:
    """What holds locks."""

    id: str
    name: str
    node: str
    ttl_seconds: float
    checks: tuple[str, ...]
    node_checks: tuple[str, ...]
    service_checks: tuple[str, ...]
    create_index: int
    behavior: str = "release"
    expires_at: float = float("inf")
    ttl: str = ""
    lock_delay_ns: int = 0
    """Told, and not kept: citadel asks for none."""

    def document(self) -> dict[str, Any]:
        return {
            "ID": self.id,
            "Name": self.name,
            "Node": self.node,
            "LockDelay": self.lock_delay_ns,
            "Behavior": self.behavior,
            "TTL": self.ttl,
            "NodeChecks": list(self.node_checks),
            "ServiceChecks": [{"ID": check, "Namespace": ""} for check in self.service_checks],
            "CreateIndex": self.create_index,
            "ModifyIndex": self.create_index,
        }


@dataclass(slots=True)
class Node:
    """A node with its services and checks, as the catalog has them."""

    name: str
    address: str
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)


Watcher = Callable[[], None]
LEADER_VERBS = frozenset({"set", "cas", "delete", "delete-cas", "delete-tree", "lock", "unlock"})


class Store:
    """The replicated state. ``writers`` hears of each transaction or write: who, which keys."""

    def __init__(self, ids: Iterator[str]) -> None:
        self.index = 10
        self.kv: dict[str, Entry] = {}
        self.graves: dict[str, int] = {}
        self.kv_index = 1
        self.sessions: dict[str, Session] = {}
        self.nodes: dict[str, Node] = {}
        self.checks_index = 1
        self.service_index: dict[str, int] = {}
        self.catalog_index = 1
        self._ids = ids
        self._watchers: dict[int, tuple[str, Watcher]] = {}
        self._indexes: dict[str, int] = {}
        """Of prefixes with anything below them: every watch asks after each write."""
        self._numbers = itertools.count()
        self.on_write: list[Callable[[object, list[dict[str, Any]]], None]] = []

    # --- watching --------------------------------------------------------------------------------------------------

    def watch(self, topic: str, watcher: Watcher) -> Callable[[], None]:
        """Have ``watcher`` called after each change of ``topic`` (``kv``, ``health``); returns how to end that."""
        number = next(self._numbers)
        self._watchers[number] = (topic, watcher)
        return lambda: self._watchers.pop(number, None) and None

    def _changed(self, topic: str) -> None:
        for wanted, watcher in list(self._watchers.values()):
            if wanted == topic:
                watcher()

    # --- keys ------------------------------------------------------------------------------------------------------

    def below(self, prefix: str) -> list[Entry]:
        return [self.kv[key] for key in sorted(self.kv) if key.startswith(prefix)]

    def index_of_key(self, key: str) -> int:
        """A key that is not there has the index of the whole table: it is answered at every write."""
        entry = self.kv.get(key)
        return entry.modify_index if entry is not None else self.kv_index

    def index_below(self, prefix: str) -> int:
        """Where nothing ever was, the index is that of the whole table."""
        found = self._indexes.get(prefix)
        if found is not None:
            return found
        known = [entry.modify_index for key, entry in self.kv.items() if key.startswith(prefix)]
        known += [index for key, index in self.graves.items() if key.startswith(prefix)]
        if not known:
            return self.kv_index
        self._indexes[prefix] = max(known)
        return max(known)

    def _moved_at(self, key: str) -> int:
        entry = self.kv.get(key)
        return entry.modify_index if entry is not None else self.graves.get(key, 0)

    def _moved(self, keys: Iterable[str]) -> None:
        """These keys are of the present index."""
        self.kv_index = self.index
        for key in keys:
            for prefix in self._indexes:
                if key.startswith(prefix):
                    self._indexes[prefix] = self.index

    def transact(self, who: object, operations: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
        """Carry out all or none: the results, or what is wrong with each operation ('' if nothing)."""
        before, graves = {k: _copy(e) for k, e in self._touched(operations)}, dict(self.graves)
        index, results, errors = self.index + 1, [], []
        changed = False
        for operation in operations:
            error, entry = self._apply(operation, index)
            errors.append(error)
            changed |= not error and operation["Verb"] in LEADER_VERBS
            if entry is not None:
                results.append({"KV": entry})
        if any(errors):
            for key, old in before.items():
                if old is None:
                    self.kv.pop(key, None)
                else:
                    self.kv[key] = old
            self.graves = graves
            return [], errors
        if changed:
            self.index = index
            if any(op["Verb"] == "delete-tree" for op in operations):
                self._indexes.clear()
            self._moved(op["Key"] for op in operations if self._moved_at(op["Key"]) == index)
            for hear in self.on_write:
                hear(who, operations)
            self._changed("kv")
        return results, []

    def _touched(self, operations: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Entry | None]]:
        for operation in operations:
            if operation["Verb"] == "delete-tree":
                yield from ((entry.key, entry) for entry in self.below(operation["Key"]))
            yield operation["Key"], self.kv.get(operation["Key"])

    def _apply(self, operation: dict[str, Any], index: int) -> tuple[str, dict[str, Any] | None]:
        verb, key = operation["Verb"], operation["Key"]
        entry = self.kv.get(key)
        session = operation.get("Session", "")
        if verb == "check-session":
            if entry is None or entry.session != session:
                return f"failed session check for key {key!r}", None
            return "", entry.document(with_value=False)
        if verb == "check-index":
            if entry is None or entry.modify_index != operation.get("Index", 0):
                return f"failed index check for key {key!r}", None
            return "", entry.document(with_value=False)
        if verb == "check-not-exists":
            return (f"key {key!r} exists", None) if entry is not None else ("", None)
        if verb == "get":
            return ("", entry.document()) if entry is not None else (f"key {key!r} doesn't exist", None)
        if verb in ("cas", "delete-cas"):
            wanted = operation.get("Index", 0)
            there = entry.modify_index if entry is not None else 0
            if there != wanted and not (verb == "delete-cas" and entry is None):
                return f"failed to {verb} key {key!r}, index is stale", None
        if verb in ("delete", "delete-cas", "delete-tree"):
            for doomed in self.below(key) if verb == "delete-tree" else [entry] if entry is not None else []:
                del self.kv[doomed.key]
                self.graves[doomed.key] = index
            return "", None
        return self._put(verb, key, operation.get("Value", "") or "", session, index)

    def _put(self, verb: str, key: str, value: str, session: str, index: int) -> tuple[str, dict[str, Any] | None]:
        entry = self.kv.get(key)
        holder = entry.session if entry is not None else ""
        if verb == "lock":
            if session not in self.sessions:
                return f"failed to lock key {key!r}, invalid session", None
            if holder not in ("", session):
                return f"failed to lock key {key!r}, lock is already held", None
        if verb == "unlock" and (entry is None or holder != session):
            return f"failed to unlock key {key!r}, lock isn't held, or is held by another session", None
        new = Entry(
            key,
            value,
            entry.create_index if entry is not None else index,
            index,
            entry.lock_index if entry is not None else 0,
            session={"lock": session, "unlock": ""}.get(verb, holder),
        )
        if verb == "lock" and holder != session:
            new.lock_index += 1
        self.kv[key] = new
        return "", new.document(with_value=False)

    # --- sessions --------------------------------------------------------------------------------------------------

    def create_session(
        self, node: str, body: dict[str, Any], ttl_seconds: float, lock_delay_ns: int = 0
    ) -> Session | str:
        """The session, or why not. A check has to be known and not critical."""
        known = self.nodes.get(node)
        if known is None:
            return f"Missing node registration for {node}"
        service_checks = tuple(check["ID"] for check in body.get("ServiceChecks") or ())
        node_checks = tuple(body.get("NodeChecks") or ())
        for check in (*node_checks, *service_checks):
            if check not in known.checks:
                return f"Missing check '{check}' registration"
            if known.checks[check]["Status"] == CRITICAL:
                return f"Check '{check}' is in critical state"
        self.index += 1
        session = Session(
            id=next(self._ids),
            name=body.get("Name", ""),
            node=node,
            ttl_seconds=ttl_seconds,
            checks=(*node_checks, *service_checks),
            node_checks=node_checks,
            service_checks=service_checks,
            create_index=self.index,
            behavior=body.get("Behavior", "release"),
            ttl=body.get("TTL") or "",
            lock_delay_ns=lock_delay_ns,
        )
        self.sessions[session.id] = session
        return session

    def end_session(self, session_id: str) -> None:
        """Release its locks (or delete the keys): each is a write of that key."""
        session = self.sessions.pop(session_id, None)
        if session is None:
            return
        self.index += 1
        held = [entry for entry in self.kv.values() if entry.session == session_id]
        for entry in held:
            if session.behavior == "delete":
                del self.kv[entry.key]
                self.graves[entry.key] = self.index
            else:
                entry.session = ""
                entry.modify_index = self.index
        if held:
            self._moved(entry.key for entry in held)
            self._changed("kv")

    # --- the catalog -----------------------------------------------------------------------------------------------

    def put_node(self, name: str, address: str) -> None:
        self.nodes.setdefault(name, Node(name, address))
        self.put_check(name, "serfHealth", {"Name": "Serf Health Status", "Status": "passing", "ServiceID": ""})

    def put_service(self, node: str, service: dict[str, Any]) -> None:
        known = self.nodes[node].services
        if known.get(service["ID"]) == service:
            return
        old = known.get(service["ID"])
        known[service["ID"]] = service
        self._bump_services({service["Service"], *([old["Service"]] if old else ())})

    def drop_service(self, node: str, service_id: str) -> None:
        service = self.nodes[node].services.pop(service_id, None)
        if service is None:
            return
        for check_id in [i for i, c in self.nodes[node].checks.items() if c["ServiceID"] == service_id]:
            self.drop_check(node, check_id)
        self._bump_services({service["Service"]})

    def put_check(self, node: str, check_id: str, check: dict[str, Any]) -> None:
        old = self.nodes[node].checks.get(check_id)
        if old is not None and all(old.get(name) == value for name, value in check.items()):
            return
        self.index += 1
        service = self.nodes[node].services.get(check["ServiceID"])
        self.nodes[node].checks[check_id] = {
            "Node": node,
            "CheckID": check_id,
            "Notes": "",
            "Output": "",
            "ServiceName": service["Service"] if service else "",
            "ServiceTags": [],
            **check,
            "ModifyIndex": self.index,
        }
        self.checks_index = self.index
        names = {service["Service"]} if service else {s["Service"] for s in self.nodes[node].services.values()}
        self._bump_services(names)
        if check["Status"] == CRITICAL:
            self._end_sessions_of(node, check_id)

    def drop_check(self, node: str, check_id: str) -> None:
        check = self.nodes[node].checks.pop(check_id, None)
        if check is None:
            return
        self.index += 1
        self.checks_index = self.index
        self._bump_services({check["ServiceName"]} - {""})
        self._end_sessions_of(node, check_id)

    def _end_sessions_of(self, node: str, check_id: str) -> None:
        for session in [s for s in self.sessions.values() if s.node == node and check_id in s.checks]:
            self.end_session(session.id)

    def _bump_services(self, names: Iterable[str]) -> None:
        self.index += 1
        self.catalog_index = self.index
        for name in names:
            self.service_index[name] = self.index
        self._changed("health")

    def checks_in(self, state: str) -> list[dict[str, Any]]:
        found = (check for node in self.nodes.values() for check in node.checks.values())
        return [check for check in found if state in ("any", check["Status"])]

    def health_of(self, name: str) -> list[dict[str, Any]]:
        return [
            {
                "Node": {"ID": "", "Node": node.name, "Address": node.address, "Datacenter": "dc1", "Meta": {}},
                "Service": service,
                "Checks": [c for c in node.checks.values() if c["ServiceID"] in ("", service["ID"])],
            }
            for node in self.nodes.values()
            for service in node.services.values()
            if service["Service"] == name
        ]


def encoded(value: bytes) -> str:
    return b64encode(value).decode()


def decoded(value: str) -> bytes:
    return b64decode(value)


def _copy(entry: Entry | None) -> Entry | None:
    if entry is None:
        return None
    return Entry(
        entry.key, entry.value, entry.create_index, entry.modify_index, entry.lock_index, entry.flags, entry.session
    )
