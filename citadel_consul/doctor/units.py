"""The units of systemd that services of this node are: whether they can run, and who else starts them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from citadel_consul.core.finding import Finding, Report, Severity
from citadel_consul.core.model import ServiceSpec, SystemdBackend
from citadel_consul.doctor.site import Site
from citadel_consul.errors import InvalidInput
from citadel_consul.rendering.expansion import expand
from citadel_consul.rendering.scope import NodeContext
from citadel_consul.store.state import StackState

if TYPE_CHECKING:
    from citadel_consul.backends.systemd.unit import UnitState


async def examine_units(site: Site, state: StackState) -> Report:
    """Ask systemd about each. Those of a user's bus can be seen by that user alone."""
    units = dict(_units_here(site, state))
    if not units:
        return Report("units", "no service of this node is a unit of systemd")
    from citadel_consul.backends.systemd.inquiry import unit_states

    answers = await unit_states(units.values())
    findings: list[Finding] = []
    unknown: list[str] = []
    for service, spec in units.items():
        answer = answers[spec]
        if isinstance(answer, Exception):
            unknown.append(str(answer))
        else:
            findings += findings_on(service, spec, answer)
    summary = f"{len(units)} services of this node are units of systemd"
    return Report("units", summary, tuple(findings), unknown="; ".join(dict.fromkeys(unknown)))


def findings_on(service: str, spec: SystemdBackend, unit: UnitState) -> Iterator[Finding]:
    """What is wrong with the unit of a service."""
    from citadel_consul.backends.systemd.refusals import not_loaded

    place = f"{service}, {spec.unit}"
    flag = "--user " * (spec.bus == "user")
    unfit = not_loaded(spec.unit, unit)
    if unfit is not None:
        remedy = "see `systemctl status`; citadel can start it when systemd can"
        yield Finding("unit-unfit", Severity.ERROR, place, str(unfit).removeprefix("backend.unit: "), remedy)
        return
    if unit.restarts_itself and spec.restarts == "citadel":
        message = (
            f"has Restart={unit.restart}, and citadel restarts it, too: what systemd plans is cancelled at every end"
        )
        remedy = "put Restart=no in a drop-in, or leave it to systemd with `restarts: systemd` in the stack file"
        yield Finding(
            "unit-restarts-itself", Severity.WARNING, place, message, remedy, f"systemctl {flag}edit {spec.unit}"
        )
    if unit.enabled == "enabled":
        message = "is enabled: at boot systemd starts it by itself, before citadel and without regard to order"
        command = f"systemctl {flag}disable {spec.unit}"
        yield Finding("unit-enabled", Severity.WARNING, place, message, "leave it to citadel", command)


def _units_here(site: Site, state: StackState) -> Iterator[tuple[str, SystemdBackend]]:
    """The services of this node that are units, as the node agent has them: rendered for the node."""
    specs: Mapping[str, ServiceSpec] = state.snapshot().specs
    for record in state.agents.values.values():
        if site.agent is None or record.consul_node != site.agent.node:
            continue
        for name, spec in specs.items():
            if record.node not in spec.nodes:
                continue
            try:
                backend = expand(spec, NodeContext(record.node, record.address, site.stack)).backend
            except InvalidInput:
                continue  # the checks' examination says so
            if isinstance(backend, SystemdBackend):
                yield name, backend
