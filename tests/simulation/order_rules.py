"""I1, I2 and I3 on the nodes: what is ordered and what is done, judged when it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from evidence import Document, Evidence, Order

from citadel_consul.agent.chronicle import Entry
from citadel_consul.core.model import Condition, Edge, Instance
from citadel_consul.core.operation import STEP_ENDED, Kind, StepAction, StepState

JUDGED = (Condition.HEALTHY, Condition.STARTED)
IN_PLACE = frozenset({Kind.RESTART, Kind.RECOVER})


class OrderRules:
    """See the module. A leader is judged by what it could know when it gave an order, an agent by the order it has."""

    def __init__(self, evidence: Evidence, accuse: Callable[[str], None]) -> None:
        self._evidence = evidence
        self._accuse = accuse
        self._started: set[tuple[Instance, int]] = set()
        self._stopping: set[tuple[Instance, int | None]] = set()
        self._highest: dict[str, int] = defaultdict(int)

    # --- what leaders order ----------------------------------------------------------------------------------------

    def order(self, order: Order, now: float) -> None:
        """A new generation has been written."""
        up = order.instance.node in self._evidence.up[order.instance.service]
        if order.run and not up:
            self._start(order, now)
        elif not order.run and up and not order.released:
            self._stop(order, now)

    def _start(self, order: Order, now: float) -> None:
        """I1: nothing starts before its hard dependencies meet their condition, nor before soft ones that start too."""
        for edge in self._evidence.settled_edges(now):
            if edge.service != order.instance.service or edge.condition not in JUDGED:
                continue
            if not edge.needed_to_start and not self._is_under_way(order.operation, edge.dependency):
                continue
            if len(self._evidence.meeting(edge, now)) < self._evidence.needed(edge):
                self._accuse(f"I1: {order.instance} is to start before {edge.dependency} is {edge.condition}")

    def _is_under_way(self, operation: str, service: str) -> bool:
        """Whether ``operation`` still has to start ``service``, or waits for its start."""
        return any(
            step["service"] == service
            and step["action"] == StepAction.START
            and step.get("state", StepState.WAITING) not in STEP_ENDED
            for step in self._evidence.steps(operation)
        )

    def _stop(self, order: Order, now: float) -> None:
        """I2: an ordered stop takes a service down only after everything running that hard-depends on it."""
        if self._spares_dependents(order):
            return
        rolling = self._options(order).get("rolling", False)
        for edge in self._evidence.settled_edges(now):
            if edge.dependency != order.instance.service or not edge.needed_to_run or edge.condition not in JUDGED:
                continue
            meeting = self._evidence.meeting(edge, now)
            if rolling and order.instance.node not in meeting:
                continue  # what does not serve anyway costs nobody anything
            if self._evidence.up[edge.service] and self._is_missed(edge, order, meeting):
                self._accuse(f"I2: {order.instance} is to stop while {edge.service} runs and needs it")

    def _is_missed(self, edge: Edge, order: Order, meeting: set[str]) -> bool:
        return len(meeting - {order.instance.node}) < self._evidence.needed(edge)

    def _options(self, order: Order) -> Document:
        options: Document = (self._evidence.head(order.operation) or {}).get("options", {})
        return options

    def _spares_dependents(self, order: Order) -> bool:
        """Whether it is meant to leave dependents running: a restart in place, a recovery, or what is forced."""
        head, options = self._evidence.head(order.operation), self._options(order)
        if head is None:  # its operation is not written yet, and so is citadel's own: a recovery
            return order.reason != "rollback"
        if head["kind"] == Kind.DRAIN or options.get("rolling"):
            return bool(options.get("force"))
        step = self._evidence.step_of(order)
        return head["kind"] in IN_PLACE and (not options.get("cascade") or step is None or bool(step.get("after")))

    # --- what agents do --------------------------------------------------------------------------------------------

    def act(self, entry: Entry) -> None:
        """An agent does something: at most once for an order that was given, and by no order of a deposed leader."""
        instance = Instance(entry.service, entry.node)
        key = (instance, entry.pid)
        if entry.what == "started":
            self._is_ordered(entry, instance, run=True)
            if (instance, entry.generation) in self._started:
                self._accuse(f"{instance} is started twice for generation {entry.generation}")
            self._started.add((instance, entry.generation))
        elif entry.what == "stopping":
            self._is_ordered(entry, instance, run=False)
            if key in self._stopping:
                self._accuse(f"{instance} (pid {entry.pid}) is stopped twice")
            self._stopping.add(key)
        if entry.what in ("started", "adopted"):  # whoever adopts it goes on with a stop that was begun
            self._stopping.discard(key)
        if entry.what in ("started", "stopping"):
            if entry.epoch < self._highest[entry.node]:
                self._accuse(f"I3: {instance} {entry.what} at epoch {entry.epoch} after {self._highest[entry.node]}")
            self._highest[entry.node] = max(self._highest[entry.node], entry.epoch)

    def _is_ordered(self, entry: Entry, instance: Instance, *, run: bool) -> None:
        """A start is of the generation that ordered it; what is stopped bears an older one than the order."""
        orders = self._evidence.orders[instance]
        if run:
            given = orders.get(entry.generation)
            if given is None or not given.run:
                self._accuse(f"I7: {instance} is started for generation {entry.generation}, which nobody ordered")
        elif not any(not order.run and order.generation > entry.generation for order in orders.values()):
            self._accuse(f"I7: {instance} is stopped, and nobody has ordered it")
