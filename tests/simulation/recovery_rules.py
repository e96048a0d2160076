"""I5: automatic recovery is bounded by a budget; past it the service is failed, said once, and left alone.

Attempts are counted here by the operations that citadel asks for itself, whatever it counts. A person's repair that
succeeded makes the budget whole again, and so does taking the service down; health does after ten minutes, which no
story lasts. What was started again because it died with something below it was no attempt on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from evidence import Document, Evidence, Write

from citadel_consul.core.healing.flapping import is_flapping
from citadel_consul.core.incident import FLAPPING, STACK, UNWATCHED
from citadel_consul.core.operation import ALL, AUTOMATIC, Kind
from citadel_consul.core.snapshot import Defaults

REPAIRS = frozenset({Kind.STARTUP, Kind.RESTART, Kind.RECOVER})
LEFT_ALONE = frozenset({"gave_up", "quarantined"})
SETTLE_SECONDS = 3.0
"""How old a lapse has to be so that every leader knows of it."""


class RecoveryRules:
    """See the module."""

    def __init__(self, evidence: Evidence, defaults: Defaults, accuse: Callable[[str], None]) -> None:
        self._evidence = evidence
        self._defaults = defaults
        self._accuse = accuse
        self._attempts: Counter[str] = Counter()
        self._said: set[str] = set()
        self._before: dict[str, Document] = {}
        """The incidents as they were before the transaction that is judged."""
        self._released_at = float("-inf")
        self._lately: dict[str, str] = {}
        """The services that were recovered since the brake was last off, with the incident in whose name."""

    # --- what is written -------------------------------------------------------------------------------------------

    def incident(self, service: str, write: Write) -> None:
        """An incident has changed."""
        before, after = write.before or {}, write.document or {}
        self._before[service] = before
        state = after.get("state")
        if state != "gave_up":
            self._said.discard(service)
        elif before.get("state") != "gave_up" and self._attempts[service] < self._budget(service):
            self._accuse(f"I5: {service} is given up after {self._attempts[service]} attempts")
        if state == "closed" and after.get("outcome") == "it is not wanted any more":
            self._attempts[service] = 0
        if service == STACK and state == "closed":
            self._lately.clear()
            self._released_at = after["closed_at"]

    def event(self, write: Write) -> None:
        """Something was put into the history: that a service has failed for good is said once."""
        event = write.document or {}
        service = event.get("service") or ""
        if event.get("kind") == "gave-up":
            if service in self._said:
                self._accuse(f"I5: it is said again that {service} has failed for good")
            self._said.add(service)

    def head(self, operation: str, write: Write) -> None:
        """An operation was asked for, or has got on."""
        head, before = write.document, write.before
        if head is None:
            return
        if head.get("requested_by") != AUTOMATIC:
            if head.get("state") == "succeeded" and (before or {}).get("state") != "succeeded":
                self._forgive(head)
        elif before is None:
            self._automatic(operation, head)

    def forget_what_is_over(self) -> None:
        """The transaction is judged."""
        self._before.clear()

    # --- what is judged --------------------------------------------------------------------------------------------

    def _forgive(self, head: Document) -> None:
        if head["kind"] in REPAIRS:
            for service in self._services():
                if any(target == ALL or target.partition("@")[0] == service for target in head["targets"]):
                    self._attempts[service] = 0

    def _automatic(self, operation: str, head: Document) -> None:
        targets = tuple(dict.fromkeys(target.partition("@")[0] for target in head["targets"]))
        if self._evidence.incident(STACK) is not None:
            self._accuse(f"I5: {', '.join(targets)} is recovered while the brake is on")
        for service in targets:
            incident = self._evidence.incident(service)
            if incident is not None and incident["state"] in LEFT_ALONE:
                self._accuse(f"I5: {service} is {incident['state']}, and is recovered by {operation}")
            if head["kind"] == Kind.RECOVER and not self._is_follower(service, operation):
                self._attempt(service, incident or {}, head)

    def _attempt(self, service: str, incident: Mapping[str, Any], head: Document) -> None:
        self._attempts[service] += 1
        budget = self._budget(service)
        if self._attempts[service] > budget:
            self._accuse(f"I5: attempt {self._attempts[service]} on {service}, whose budget is {budget}")
        if self._flaps(service, head):
            self._accuse(f"I5: {service} flaps, and is recovered")
        self._count_for_brake(service, incident, head)

    def _is_follower(self, service: str, operation: str) -> bool:
        """Whether it was started again because it died with something whose incident is another."""
        for other in self._services():
            incident = self._evidence.documents.get(self._evidence.keys.incident(other)) or {}
            if operation in incident.get("operations", ()) and service in incident.get("followed", ()):
                return True
        return False

    def _flaps(self, service: str, head: Document) -> bool:
        """Whether it had come and gone so often, since it was last restarted for it, that it should be quarantined."""
        if any(edge.service == service and edge.needed_to_run for edge, _ in self._evidence.edges.values()):
            return False  # it can go up and down with something below it
        before = self._before.get(service) or {}
        marks = [before[name] for name in ("last_attempt_at", "forgiven_at") if before.get(name) is not None]
        marks += [o["ended_at"] for o in self._repairs(service)]
        began, now = max(marks, default=float("-inf")), head["requested_at"]
        lapses = self._evidence.known_lapses(service, SETTLE_SECONDS)
        told = [at for at in lapses if began < at <= now - SETTLE_SECONDS]
        return is_flapping(told, now, self._defaults.flap_limit, self._defaults.flap_half_life_seconds)

    def _repairs(self, service: str) -> list[Document]:
        keys = self._evidence.keys
        return [
            head
            for key, head in self._evidence.documents.items()
            if key.startswith(keys.operations)
            and head.get("ended_at") is not None
            and head.get("requested_by") != AUTOMATIC
            and any(target == ALL or target.partition("@")[0] == service for target in head["targets"])
        ]

    def _count_for_brake(self, service: str, incident: Mapping[str, Any], head: Document) -> None:
        """Within the window, no more services are recovered than a stack may lose before the brake comes on."""
        if incident.get("cause") in (FLAPPING, UNWATCHED) or incident.get("part_of") is not None:
            return
        if min(incident.get("failures", ()), default=incident.get("opened_at", 0.0)) <= self._released_at:
            return  # it failed before the brake came off, knowingly
        self._lately[service] = incident.get("id", "")
        since = head["requested_at"] - self._defaults.brake_window_seconds
        counted = 0
        for other, identifier in self._lately.items():
            found = self._evidence.incident(other)
            own = found is not None and found["id"] == identifier and found.get("part_of") is None
            counted += own and found is not None and found["opened_at"] > since
        most = max(self._defaults.brake_services - 1, int(self._defaults.brake_share * len(self._services())))
        if counted > most:
            self._accuse(f"I5: {counted} services are recovered at once, and the brake is not on")

    def _services(self) -> list[str]:
        keys = self._evidence.keys
        return [key.removeprefix(keys.specs) for key in self._evidence.documents if key.startswith(keys.specs)]

    def _budget(self, service: str) -> int:
        recovery = self._evidence.documents[self._evidence.keys.spec(service)].get("recovery", {})
        return int(recovery.get("attempts", self._defaults.recovery_attempts))
