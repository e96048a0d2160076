"""What a Consul agent answers to each request: of itself, or from the servers' store."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import orjson
from simulated_consul import PASSING, Agent, seconds_of
from simulated_store import encoded

Answer = tuple[int, int | None, bytes]
"""Status, index, content."""
_CLAUSE = re.compile(r'(?:Meta\["(?P<meta>[^"]+)"\]|(?P<field>\w+)) (?P<operator>==|!=|matches) "(?P<value>[^"]*)"')


@cache
def predicate(expression: str) -> Callable[[dict[str, Any]], bool]:
    """What a filter chooses: clauses joined by ``and``, and such alternatives by ``or``."""
    alternatives = [list(_CLAUSE.finditer(part)) for part in expression.split(" or ")]
    return lambda item: any(all(_holds(clause, item) for clause in clauses) for clauses in alternatives)


def _holds(clause: re.Match[str], item: dict[str, Any]) -> bool:
    value = item.get("Meta", {}).get(clause["meta"]) if clause["meta"] else item.get(clause["field"])
    if clause["operator"] == "matches":
        return re.search(clause["value"], value or "") is not None
    return (value == clause["value"]) is (clause["operator"] == "==")


class Endpoints:
    """One request, as it is carried out. ``who`` is told to those who hear of writes."""

    def __init__(self, agent: Agent, who: object, method: str, path: str, query: Mapping[str, str]) -> None:
        self.agent = agent
        self.who = who
        self.method = method
        self.path = path
        self.query = query

    @staticmethod
    def told(index: int, value: Any) -> Answer:
        """A read as it is answered."""
        if value is None:
            return 404, max(index, 1), b""
        return 200, max(index, 1), orjson.dumps(value)

    # --- the agent itself ------------------------------------------------------------------------------------------

    def local(self, body: bytes) -> Answer:
        agent, path = self.agent, self.path.removeprefix("/v1/agent/")
        if path == "self":
            config = {"NodeName": agent.node, "Datacenter": "dc1", "Version": "1.8.7", "Server": False}
            return 200, None, orjson.dumps({"Config": config, "Member": {"Addr": agent.address}})
        if path == "services":
            return 200, None, orjson.dumps(self._filtered(agent.services))
        if path == "checks":
            return 200, None, orjson.dumps(self._filtered(agent.checks))
        action, _, name = path.rpartition("/")
        if path == "service/register":
            agent.register(orjson.loads(body), "replace-existing-checks" in self.query)
            return 200, None, b""
        if action == "service/maintenance":
            done = agent.maintain(name, self.query["enable"] == "true", self.query.get("reason", ""))
        elif action == "check/update":
            done = agent.update(name, orjson.loads(body)["Status"])
        elif action == "service/deregister":
            done = agent.deregister(name)
        elif action == "check/deregister":
            done = agent.drop_check(name)
        else:
            return 404, None, b"no such endpoint"
        return (200, None, b"") if done else (404, None, b"unknown " + name.encode())

    def _filtered(self, found: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        chosen = predicate(self.query.get("filter", ""))
        return {name: item for name, item in found.items() if chosen(item)}

    # --- the servers -----------------------------------------------------------------------------------------------

    def look(self) -> tuple[Callable[[], tuple[int, Any]], str]:
        """How to find the answer now, with its index; and what has to change for another."""
        store = self.agent.cluster.store
        path = self.path.removeprefix("/v1/")
        first, _, rest = path.partition("/")
        if first == "kv":
            return self._look_at_keys(rest), "kv"
        if path.startswith("health/state/"):
            state = path.rpartition("/")[2]
            chosen = predicate(self.query.get("filter", ""))
            return lambda: (store.checks_index, [c for c in store.checks_in(state) if chosen(c)]), "health"
        if path.startswith("health/service/"):
            return self._look_at_service(path.rpartition("/")[2]), "health"
        if path.startswith("health/node/"):
            node = path.rpartition("/")[2]
            chosen = predicate(self.query.get("filter", ""))
            return lambda: (store.catalog_index, [c for c in store.nodes[node].checks.values() if chosen(c)]), "health"
        if path == "session/list":
            return lambda: (store.index, [session.document() for session in store.sessions.values()]), ""
        if path.startswith("session/info/"):
            session = store.sessions.get(path.rpartition("/")[2])
            return lambda: (store.index, [session.document()] if session else []), ""
        if path == "status/leader":
            return lambda: (store.index, "127.0.0.1:8300"), ""
        return lambda: (store.index, None), ""

    def _look_at_keys(self, key: str) -> Callable[[], tuple[int, Any]]:
        store = self.agent.cluster.store
        if "keys" in self.query:
            return lambda: (store.index_below(key), [entry.key for entry in store.below(key)] or None)
        if "recurse" in self.query:
            return lambda: (store.index_below(key), [entry.document() for entry in store.below(key)] or None)
        return lambda: (store.index_of_key(key), [store.kv[key].document()] if key in store.kv else None)

    def _look_at_service(self, name: str) -> Callable[[], tuple[int, Any]]:
        store, passing = self.agent.cluster.store, "passing" in self.query

        def look() -> tuple[int, Any]:
            found = store.health_of(name)
            if passing:
                found = [entry for entry in found if all(c["Status"] == PASSING for c in entry["Checks"])]
            return store.service_index.get(name, store.catalog_index), found

        return look

    def write(self, body: bytes) -> Answer:
        cluster = self.agent.cluster
        store = cluster.store
        path = self.path.removeprefix("/v1/")
        if path == "txn":
            return self._transact([operation["KV"] for operation in orjson.loads(body)])
        if path.startswith("kv/"):
            return self._put_key(path.removeprefix("kv/"), body)
        if path == "session/create":
            wanted = orjson.loads(body)
            delay = round(seconds_of(wanted.get("LockDelay") or "") * 1e9)
            session = store.create_session(self.agent.node, wanted, seconds_of(wanted.get("TTL") or ""), delay)
            if isinstance(session, str):
                return 500, None, session.encode()
            cluster.renew(session.id)
            return 200, None, orjson.dumps({"ID": session.id})
        session_id = path.rpartition("/")[2]
        if path.startswith("session/renew/"):
            if not cluster.renew(session_id):
                return 404, None, b"Session id '" + session_id.encode() + b"' not found"
            return 200, None, orjson.dumps([store.sessions[session_id].document()])
        if path.startswith("session/destroy/"):
            store.end_session(session_id)
            return 200, None, b"true"
        if path.startswith("event/fire/"):
            return 200, None, orjson.dumps({"ID": "e"})
        return 404, None, b"no such endpoint"

    def _transact(self, operations: list[dict[str, Any]]) -> Answer:
        results, errors = self.agent.cluster.store.transact(self.who, operations)
        if errors:
            failures = [{"OpIndex": place, "What": error} for place, error in enumerate(errors) if error]
            return 409, None, orjson.dumps({"Results": None, "Errors": failures})
        return 200, None, orjson.dumps({"Results": results, "Errors": None})

    def _put_key(self, key: str, body: bytes) -> Answer:
        store = self.agent.cluster.store
        if self.method == "DELETE":
            operation: dict[str, Any] = {"Verb": "delete-tree" if "recurse" in self.query else "delete", "Key": key}
            if "cas" in self.query:
                operation |= {"Verb": "delete-cas", "Index": int(self.query["cas"])}
        else:
            operation = {"Verb": "set", "Key": key, "Value": encoded(body)}
            if "cas" in self.query:
                operation |= {"Verb": "cas", "Index": int(self.query["cas"])}
        _, errors = store.transact(self.who, [operation])
        return 200, None, b"false" if errors else b"true"
