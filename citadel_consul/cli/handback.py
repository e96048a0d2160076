"""handback: services back to their own managers, running and started at boot as they were before."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import click

from citadel_consul.cli.invocation import Invocation, caller, command_options, run
from citadel_consul.cli.printing import print_answer
from citadel_consul.errors import InvalidInput, NoLeader, Refused

if TYPE_CHECKING:
    from citadel_consul.consul.client import ConsulClient
    from citadel_consul.core.model import Instance, ServiceSpec
    from citadel_consul.core.snapshot import Snapshot
    from citadel_consul.store.state import StackState

LOOK_SECONDS = 0.2
WAIT_SECONDS = 30.0


@click.command(epilog="Example: citadel handback redis")
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@click.option("--all", "everything", is_flag=True, help="Every service of the stack.")
@click.option(
    "--unit", "units", metavar="UNIT", multiple=True, help="Only have systemd start UNIT at boot again, here."
)
@click.option("--abandon", is_flag=True, help="Also let go of programs that no other manager knows.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and change nothing.")
@command_options
def handback(
    invocation: Invocation,
    services: tuple[str, ...],
    everything: bool,
    units: tuple[str, ...],
    abandon: bool,
    dry_run: bool,
) -> None:
    """Hand services back to systemd or Docker: they run on, and citadel forgets them.

    They leave the stack and Consul's catalog. What systemd started at boot before citadel was installed is started so
    again; for other machines than this one it is said what to do there.
    """
    if sum(map(bool, (services, everything, units))) != 1:
        raise InvalidInput.at("", "name the services, or say --all, or --unit", "citadel services lists them")
    if units:
        _take_units(invocation, units)
    else:
        run(_hand_back(invocation, services, abandon=abandon, dry_run=dry_run))


def _take_units(invocation: Invocation, units: tuple[str, ...]) -> None:
    """What is left to do on the machine of a service that was handed back elsewhere."""
    from citadel_consul.installation.handing import give_back

    _say(invocation, (), give_back(invocation.settings, units), written=True)


async def _hand_back(invocation: Invocation, services: tuple[str, ...], *, abandon: bool, dry_run: bool) -> None:
    async with invocation.consul() as client:
        state = await invocation.read(client)
        specs = _chosen(state.snapshot(), services)
        _refuse_orphans(state.snapshot(), specs)
        _refuse_unmanaged(state.snapshot(), specs, abandon=abandon)
        _refuse_busy(state, specs)
        units = _units(state, specs)
        if not dry_run:
            _refuse_old_agents(state, specs)
            await _have_released(invocation, client, state, specs)
    _say(invocation, specs, _places(invocation, units, dry_run=dry_run), written=not dry_run)


# --- what may not be ------------------------------------------------------------------------------------------------


def _chosen(snapshot: Snapshot, services: tuple[str, ...]) -> Mapping[str, ServiceSpec]:
    """The specs that are meant. Raises InvalidInput for a service that is not in the stack."""
    unknown = [name for name in services if name not in snapshot.specs]
    if unknown:
        remedy = "citadel services lists them; one that was handed back is not there any more: --unit does the rest"
        raise InvalidInput.at("", f"unknown service {unknown[0]!r}", remedy)
    return {name: snapshot.specs[name] for name in services} if services else snapshot.specs


def _refuse_orphans(snapshot: Snapshot, specs: Mapping[str, ServiceSpec]) -> None:
    """Raise Refused if something that stays in the stack needs what leaves it."""
    needing = {e.service: e.dependency for name in specs for e in snapshot.graph.dependents(name)}
    left = {service: dependency for service, dependency in needing.items() if service not in specs}
    if left:
        service, dependency = next(iter(left.items()))
        raise Refused(
            f"{', '.join(left)} would depend on what citadel does not know any more: hand "
            f"{'them' if len(left) > 1 else 'it'} back as well, or remove the edges (citadel deps remove {service} "
            f"{dependency})"
        )


def _refuse_unmanaged(snapshot: Snapshot, specs: Mapping[str, ServiceSpec], *, abandon: bool) -> None:
    """Raise Refused if there is nobody to hand a running service to."""
    orphans = [
        name
        for name, spec in specs.items()
        if spec.backend.kind == "process" and any(snapshot.is_alive(i) for i in spec.instances)
    ]
    if orphans and not abandon:
        raise Refused(
            f"{', '.join(orphans)}: a program of citadel's own (backend.kind: process), so there is no manager to hand "
            f"it to. Give it one: write a systemd unit, say kind: systemd in the stack file, citadel apply, citadel "
            f"restart, and hand it back then. With --abandon it runs on until it ends, and nothing starts it again"
        )


def _refuse_busy(state: StackState, specs: Mapping[str, ServiceSpec]) -> None:
    """Raise Refused while an operation works on what is to leave."""
    for operation in state.all_operations():
        named = {target.partition("@")[0] for target in operation.targets}
        if not operation.ended and (operation.scope | named) & {*specs, *(("all",) if specs else ())}:
            raise Refused(f"operation {operation.id} works on it: wait for its end, or citadel ops cancel it")


def _refuse_old_agents(state: StackState, specs: Mapping[str, ServiceSpec]) -> None:
    """Raise Refused if a node agent would take the order for one to stop."""
    nodes = {node for spec in specs.values() for node in spec.nodes}
    old = sorted(record.node for record in state.agents.values.values() if record.node in nodes and not record.lets_go)
    if old:
        raise Refused(f"the node agents of {', '.join(old)} are too old to let go of a service: upgrade them first")


# --- in Consul ------------------------------------------------------------------------------------------------------


async def _have_released(
    invocation: Invocation, client: ConsulClient, state: StackState, specs: Mapping[str, ServiceSpec]
) -> None:
    """Have the node agents let go of the services, then take these out of the stack."""
    from citadel_consul.core.snapshot import Hold
    from citadel_consul.store.handback import forget, request

    by = caller()
    await request(client, state.keys, [Hold("service", n, by, "handed back", handback=True) for n in specs])
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while waiting := _not_let_go(state.snapshot(), specs):
                await asyncio.sleep(LOOK_SECONDS)
                state = await invocation.read(client)
    except TimeoutError:
        raise NoLeader(
            f"not let go of within {WAIT_SECONDS:g} s: {', '.join(map(str, waiting))}; the request stands and nothing "
            f"was stopped. An orchestrator has to lead: see citadel status, then say this again"
        ) from None
    await forget(client, await invocation.read(client), tuple(specs))


def _not_let_go(snapshot: Snapshot, specs: Mapping[str, ServiceSpec]) -> list[Instance]:
    from citadel_consul.core.handback import is_let_go

    return [i for spec in specs.values() for i in spec.instances if not is_let_go(snapshot, i)]


# --- on the machines ------------------------------------------------------------------------------------------------


def _units(state: StackState, specs: Mapping[str, ServiceSpec]) -> dict[Instance, str]:
    """The unit of each instance that the system's systemd has."""
    from citadel_consul.installation.managed import unit_of_service

    addresses = {record.node: record.address for record in state.agents.values.values()}
    found = {
        instance: unit_of_service(state.keys.stack, spec, instance.node, addresses.get(instance.node, ""))
        for spec in specs.values()
        for instance in spec.instances
    }
    return {instance: unit for instance, unit in found.items() if unit is not None}


def _places(invocation: Invocation, units: Mapping[Instance, str], *, dry_run: bool) -> dict[str, str]:
    """What became of each unit, or what is to be done about it on its own machine."""
    from citadel_consul.installation.handing import give_back

    here = [unit for instance, unit in units.items() if instance.node == invocation.settings.node]
    done = {} if dry_run else give_back(invocation.settings, here)
    elsewhere = "on {node}, as root: citadel handback --unit {unit}"
    return {
        f"{instance}, {unit}": done[unit]
        if unit in done and instance.node == invocation.settings.node
        else elsewhere.format(node=instance.node, unit=unit)
        for instance, unit in units.items()
    }


def _say(invocation: Invocation, specs: Collection[str], places: Mapping[str, str], *, written: bool) -> None:
    if invocation.output != "table":
        print_answer({"handed_back": list(specs), "written": written, "units": dict(places)}, invocation.output)
        return
    if not specs and not places:
        click.echo("there is nothing to hand back")
    for name in specs:
        click.echo(f"{name}: {'handed back: it runs on as it is' if written else 'would be handed back'}")
    for place, what in places.items():
        click.echo(f"{place}: {what}")
    if not written:
        click.echo("Nothing was changed (dry run).")
