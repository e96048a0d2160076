"""Holds a simulated site against the invariants, after each thing that happens in it.

Whatever node agents, leaders and machines do comes by here in the moment in which it takes effect. The first thing that
an invariant forbids ends the story, with the moment and the invariant's name. What has to come true some time (every
operation ends, everything is as wished) is looked at when the faults are over: see ``simulation``.

What a leader cannot know yet it is not blamed for: a report that has not been written, a change of the last seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from clockwork import Process, SimulatedLoop
from evidence import Document, Evidence, Order, Write
from hold_rules import HoldRules
from order_rules import OrderRules
from recovery_rules import RecoveryRules

from citadel_consul.agent.chronicle import Entry
from citadel_consul.core.lifecycle import IllegalTransitionError
from citadel_consul.core.model import Instance
from citadel_consul.core.operation import ENDED, OperationState, check_operation_transition
from citadel_consul.core.snapshot import Defaults
from citadel_consul.store.keys import Keys


class Judge:
    """See the module. ``accuse`` is called with each violation."""

    def __init__(self, loop: SimulatedLoop, keys: Keys, defaults: Defaults, accuse: Callable[[str], None]) -> None:
        self.evidence = Evidence(keys)
        self._loop = loop
        self._keys = keys
        self._accuse = accuse
        self._orders = OrderRules(self.evidence, accuse)
        self._holds = HoldRules(self.evidence, loop, accuse)
        self._recovery = RecoveryRules(self.evidence, defaults, accuse)
        self._begun: Counter[Instance] = Counter()
        self._stopped: Counter[Instance] = Counter()

    # --- on the machines -------------------------------------------------------------------------------------------

    def heard(self, entry: Entry) -> None:
        """A node agent wrote something down."""
        if entry.service:
            self._orders.act(entry)
            self._begun[Instance(entry.service, entry.node)] += entry.what == "stopping"
            self.evidence.hear(entry)

    def stopped(self, instance: Instance) -> None:
        """I7: a machine was told to stop an instance, which its agent has written down before."""
        self._stopped[instance] += 1
        if self._stopped[instance] > self._begun[instance]:
            self._accuse(f"I7: {instance} is stopped, and nobody has ordered it")

    def started_twice(self, instance: Instance) -> None:
        """A machine was told to start what runs there."""
        self._accuse(f"{instance} is started while it runs")

    # --- in Consul -------------------------------------------------------------------------------------------------

    def wrote(self, sender: Process | None, sent_at: float, operations: list[Document]) -> None:
        """A transaction (or a single write) has taken effect."""
        now = self._loop.time()
        self._fenced(sender, operations)
        writes = self.evidence.take(operations, sender, sent_at, now)
        for write in writes:
            self._judge(write, now)
        self._recovery.forget_what_is_over()

    def listed_holds(self, reader: Process, held: dict[str, Document]) -> None:
        """A process has read the holds."""
        self._holds.read_by(reader, held, self._loop.time())

    def _judge(self, write: Write, now: float) -> None:
        key, keys = write.key, self._keys
        if key.startswith(keys.desired):
            for order in self._new_orders(write):
                self._orders.order(order, now)
                self._holds.order(order, now)
        elif key.startswith(keys.operations) and not key.endswith("/cancel"):
            self._progress(key.removeprefix(keys.operations), write)
            self._recovery.head(key.removeprefix(keys.operations), write)
            self._holds.head(write, now)
        elif key.startswith(keys.steps):
            self._holds.reloads(key.removeprefix(keys.steps).partition("/")[0], write, now)
        elif key.startswith(keys.incidents):
            self._recovery.incident(key.removeprefix(keys.incidents), write)
        elif key.startswith(keys.events):
            self._recovery.event(write)
        elif key.startswith(keys.holds):
            self._holds.written(key, write, now)

    def _fenced(self, sender: Process | None, operations: list[Document]) -> None:
        """I3, in Consul: what only the leader writes, it writes under its fence."""
        keys = self._keys
        mine = (keys.desired, keys.incidents, keys.stats, keys.steps)
        touched = [op["Key"] for op in operations if op["Verb"].startswith(("set", "cas", "delete"))]
        if any(key.startswith(mine) for key in touched):
            first = operations[0]
            if first["Verb"] != "check-session" or first["Key"] != keys.leader:
                self._accuse(f"I3: {sender} writes {', '.join(touched)} without its fence")

    def _new_orders(self, write: Write) -> list[Order]:
        """What a write of ``desired/<node>`` orders anew. I3: no leader writes with the epoch of an earlier one."""
        document, before = write.document or {}, write.before or {}
        if document.get("epoch", 0) < before.get("epoch", 0):
            self._accuse(f"I3: {write.key} is written with epoch {document.get('epoch')} after {before['epoch']}")
        node = write.key.removeprefix(self._keys.desired)
        known = before.get("instances", {})
        found = []
        for service, wanted in document.get("instances", {}).items():
            if wanted["generation"] == known.get(service, {}).get("generation"):
                continue
            order = Order(
                Instance(service, node),
                wanted["run"],
                wanted["generation"],
                wanted.get("operation") or "",
                wanted.get("reason", ""),
                wanted.get("released", False),
                write.sender,
                write.sent_at,
            )
            self.evidence.orders[order.instance][order.generation] = order
            found.append(order)
        return found

    def _progress(self, operation: str, write: Write) -> None:
        """I4: no operation is lost, and what has ended stays as it has."""
        before = OperationState((write.before or {}).get("state", "pending"))
        if write.document is None:
            if before not in ENDED:
                self._accuse(f"I4: operation {operation} is deleted while it is {before}")
            return
        after = OperationState(write.document.get("state", "pending"))
        try:
            check_operation_transition(before, after)
        except IllegalTransitionError as error:
            self._accuse(f"I4: {operation}: {error}")
