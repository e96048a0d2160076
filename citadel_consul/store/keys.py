"""Where things lie in the KV store (``docs/architecture.md`` has the table)."""

from __future__ import annotations

from dataclasses import dataclass

ROOT = "citadel/"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one stack."""

    stack: str

    @property
    def root(self) -> str:
        return f"{ROOT}{self.stack}/"

    @property
    def leader(self) -> str:
        return f"{self.root}leader"

    @property
    def handover(self) -> str:
        """Where an operator asks for another leader."""
        return f"{self.root}handover"

    @property
    def dev(self) -> str:
        """The mark of a stack that ``citadel dev`` runs."""
        return f"{self.root}dev"

    @property
    def agents(self) -> str:
        return f"{self.root}agents/"

    @property
    def specs(self) -> str:
        return f"{self.root}specs/"

    @property
    def edges(self) -> str:
        return f"{self.root}edges/"

    @property
    def operations(self) -> str:
        return f"{self.root}operations/"

    @property
    def steps(self) -> str:
        return f"{self.root}steps/"

    @property
    def desired(self) -> str:
        return f"{self.root}desired/"

    @property
    def observed(self) -> str:
        return f"{self.root}observed/"

    @property
    def holds(self) -> str:
        return f"{self.root}holds/"

    @property
    def incidents(self) -> str:
        return f"{self.root}incidents/"

    @property
    def notices(self) -> str:
        return f"{self.root}notices/"

    @property
    def events(self) -> str:
        return f"{self.root}events/"

    @property
    def stats(self) -> str:
        return f"{self.root}stats/"

    def stats_of(self, service: str) -> str:
        return f"{self.stats}{service}"

    def agent(self, node: str) -> str:
        return f"{self.agents}{node}"

    def spec(self, service: str) -> str:
        return f"{self.specs}{service}"

    def edge(self, service: str, dependency: str) -> str:
        return f"{self.edges}{service}/{dependency}"

    def operation(self, operation_id: str) -> str:
        return f"{self.operations}{operation_id}"

    def cancel(self, operation_id: str) -> str:
        """Where a request to cancel goes: a key of its own, so that it never races the leader's writes."""
        return f"{self.operations}{operation_id}/cancel"

    def step_chunks(self, operation_id: str) -> str:
        return f"{self.steps}{operation_id}/"

    def step_chunk(self, operation_id: str, number: int) -> str:
        return f"{self.steps}{operation_id}/{number:04d}"

    def desired_of(self, node: str) -> str:
        return f"{self.desired}{node}"

    def observed_of(self, node: str) -> str:
        return f"{self.observed}{node}"

    def incident(self, service: str) -> str:
        return f"{self.incidents}{service}"

    def notice(self, notice_id: str) -> str:
        """Where a notice is posted; its id is that of the incident and a word for what happened to it."""
        return f"{self.notices}{notice_id}"

    def hold(self, scope: str, name: str) -> str:
        """A hold on a service or a node; one on the stack has no name."""
        return f"{self.holds}{scope}/{name}" if name else f"{self.holds}{scope}"

    def event(self, event_id: str) -> str:
        return f"{self.events}{event_id}"
