"""uninstall: citadel off this machine, services left as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from citadel_consul.cli.invocation import Invocation, command_options, run
from citadel_consul.cli.printing import print_answer
from citadel_consul.errors import CitadelError, Refused

if TYPE_CHECKING:
    from citadel_consul.installation.places import Root
    from citadel_consul.installation.systemctl import UnitState
    from citadel_consul.installation.uninstalling import Outcome, Removal

ASK_SECONDS = 5.0
"""How long Consul is asked what would be lost."""


@click.command(epilog="Example: citadel handback --all && citadel uninstall --dry-run")
@click.argument("role", type=click.Choice(["agent", "orchestrator"]), required=False)
@click.option("--dry-run", is_flag=True, help="Show what would go and change nothing.")
@click.option("--root", "folder", metavar="DIR", default="/", help="Work on the root folder of another machine.")
@click.option("--purge", is_flag=True, help="Also remove edited files, records, output and the account.")
@click.option("--abandon", is_flag=True, help="Go ahead although nobody will look after services that run here.")
@command_options
def uninstall(invocation: Invocation, role: str | None, dry_run: bool, folder: str, purge: bool, abandon: bool) -> None:
    """Remove what install wrote on this machine, and nothing else. Services run on.

    Without a role both go. It is refused while this node's services are not handed back. Units that systemd started at
    boot before are started so again.
    """
    from citadel_consul.installation.places import ROLES, Root
    from citadel_consul.installation.record import read_record
    from citadel_consul.installation.uninstalling import plan_removal
    from citadel_consul.installation.uninstalling import uninstall as carry_out

    root = Root(Path(folder).absolute())
    record = read_record(root)
    roles = tuple(name for name in ROLES if record is not None and name in record.roles and role in (None, name))
    if record is None or not roles:
        _say(invocation, f"{'citadel' if role is None else role} is not installed here: nothing to remove")
        return
    plan = plan_removal(root, record, roles, purge=purge)
    if "agent" in roles and not abandon and root.is_machine:
        _refuse_losses(invocation, root)
    if dry_run:
        _show(invocation, plan)
        return
    outcome = carry_out(plan)
    _tell(invocation, plan, outcome)


def _refuse_losses(invocation: Invocation, root: Root) -> None:
    """Raise Refused if anything runs here that nobody would look after."""
    from citadel_consul.installation import places
    from citadel_consul.installation.leftovers import running_processes

    try:
        managed = run(_managed(invocation))
    except (CitadelError, TimeoutError) as error:
        raise Refused(
            f"Consul cannot say which services would be left alone ({str(error) or 'no answer'}): --abandon goes ahead"
        ) from error
    if managed:
        raise Refused(
            f"{', '.join(managed)} would be left alone: citadel handback {' '.join(managed)} first, or --abandon"
        )
    processes = running_processes(root.path(places.STATE))
    if processes:
        names = ", ".join(dict.fromkeys(instance.service for instance in processes))
        raise Refused(
            f"{names}: started by the node agent itself, and no other manager knows them. citadel down stops them; "
            f"with --abandon they run on until they end, and nothing starts them again"
        )


async def _managed(invocation: Invocation) -> list[str]:
    """The services of this node that are in the stack and run, and have a manager of their own."""
    import asyncio

    node = invocation.settings.node
    async with asyncio.timeout(ASK_SECONDS), invocation.consul() as client:
        state = await invocation.read(client)
    snapshot = state.snapshot()
    return sorted(
        name
        for name, spec in snapshot.specs.items()
        for instance in spec.instances
        if spec.backend.kind != "process" and instance.node == node and not snapshot.is_down(instance)
    )


def _show(invocation: Invocation, plan: Removal) -> None:
    if invocation.output != "table":
        print_answer({"roles": plan.roles, "removed": False, **_answer(plan)}, invocation.output)
        return
    for role in plan.roles:
        click.echo(f"citadel-{role}.service would be stopped and disabled")
    for step in plan.steps:
        click.echo(f"{step.place}: {'would be kept: edited by hand' if step.fate == 'edited' else 'would be removed'}")
    for unit in plan.give_back:
        click.echo(f"{unit} would be started at boot by systemd again")
    click.echo("Nothing was changed (dry run).")


def _tell(invocation: Invocation, plan: Removal, outcome: Outcome) -> None:
    """Say what went and what is left, and check what has to hold after a way back."""
    from citadel_consul.installation.leftovers import processes_of
    from citadel_consul.installation.systemctl import Systemctl

    systemctl = Systemctl(plan.root)
    units = {unit: systemctl.state(unit) for unit in plan.give_back} if plan.root.is_booted else {}
    left = [pid for role in plan.roles for pid in processes_of(role)] if plan.root.is_machine else []
    if invocation.output != "table":
        answer = {**_answer(plan), "kept": dict(outcome.kept), "units": units, "processes": left}
        print_answer({"roles": plan.roles, "removed": True, **answer}, invocation.output)
    else:
        _print_outcome(plan, outcome, units, left)
    if left:
        raise Refused(f"processes of citadel still run that no unit started: {', '.join(map(str, left))}")


def _print_outcome(plan: Removal, outcome: Outcome, units: dict[str, UnitState], left: list[int]) -> None:
    for step in plan.steps:
        if step.fate != "edited":
            click.echo(f"{step.place}: removed")
    for path, why in outcome.kept.items():
        click.echo(f"{path}: kept: {why}")
    for unit, state in units.items():
        click.echo(f"{unit}: {state.active}, {state.enabled} at boot; systemctl is its manager again")
    if not left:
        click.echo(f"{' and '.join(plan.roles)}: removed; no process of citadel's runs here for it")


def _answer(plan: Removal) -> dict[str, object]:
    files = [{"file": step.place, "fate": step.fate} for step in plan.steps]
    return {"files": files, "given_back": dict(plan.give_back)}


def _say(invocation: Invocation, sentence: str) -> None:
    if invocation.output == "table":
        click.echo(sentence)
    else:
        print_answer({"roles": [], "removed": False, "message": sentence}, invocation.output)
