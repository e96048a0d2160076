"""Whom Consul has on its list for a service, and what to make of a list that is suddenly empty.

An empty list is the truth as long as Consul was there all the time. After an outage it may be amnesia: an agent that
was restarted starts every check as critical, and in dev mode has forgotten its services, until they were run and
registered again. So who served before an outage is remembered for a while, and serves on unless the new list names
anybody who does. A connection that breaks is the proof that it no longer does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from citadel_consul.discovery.choice import Instances, serving

REMEMBERED_SECONDS: Final = 60.0
"""Twice the time that slow checks (30 s) take to have run once."""


@dataclass(frozen=True, slots=True)
class Roster:
    """Who serves. ``known`` turns true with the first answer; ``until`` is set while ``local`` is only remembered.

    ``remote`` are the instances of another datacenter, which stand in while there are no local ones.
    """

    local: Instances = ()
    remote: Instances = ()
    known: bool = False
    until: float | None = None

    def told(self, answer: Instances, now: float, *, after_outage: bool) -> Roster:
        """The roster after Consul answered with all instances of the service."""
        current = serving(answer)
        if current:
            return Roster(current, known=True)
        remembering = self.until is not None and now < self.until
        if self.local and (after_outage or remembering):
            until = self.until if remembering else now + REMEMBERED_SECONDS
            return Roster(self.local, self.remote, known=True, until=until)
        return Roster((), self.remote, known=True)

    def helped(self, remote: Instances) -> Roster:
        """The roster after a prepared query found ``remote`` instances."""
        return Roster(self.local, serving(remote), known=True, until=self.until)

    def at(self, now: float) -> Roster:
        """The roster as of ``now``: what was only remembered is forgotten when its time is over."""
        if self.until is None or now < self.until:
            return self
        return Roster((), self.remote, known=self.known)

    @property
    def instances(self) -> Instances:
        """Who can be sent a request."""
        return self.local or self.remote
