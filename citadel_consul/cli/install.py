"""install: the units of an orchestrator or a node agent on this machine, and what they need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from citadel_consul.cli.invocation import SHARED_FLAGS, Invocation, settings_options
from citadel_consul.cli.printing import print_answer

if TYPE_CHECKING:
    from citadel_consul.config.settings import Settings
    from citadel_consul.installation.blueprint import Choices
    from citadel_consul.installation.installing import Installation, Result
    from citadel_consul.installation.places import Root
    from citadel_consul.installation.record import InstalledRole

FLAGS = ("node", "node_address", "api_bind", "api_allow_insecure_bind")

WORDS = {
    "create": "written",
    "replace": "replaced",
    "unchanged": "unchanged",
    "remove": "removed: not needed any more",
    "edited": "kept: it was edited by hand (--force replaces it)",
    "stranger": "kept: it was there before",
    "missing": "gone",
}
"""What is said of each fate of a file."""


@click.command(epilog="Example: citadel install agent --stack shop --node n1 --unit redis-server.service --dry-run")
@click.argument("role", type=click.Choice(["agent", "orchestrator"]))
@click.option("--dry-run", is_flag=True, help="Show the files and write nothing.")
@click.option("--root", "folder", metavar="DIR", default="/", help="Prepare the root folder of another machine.")
@click.option("--user", metavar="NAME", help="Run as this user, who is made if missing; default: citadel.")
@click.option("--unit", "units", metavar="UNIT", multiple=True, help="A systemd unit that the agent shall manage.")
@click.option("--stack-file", type=click.Path(path_type=Path), help="Manage the units that it names for this node.")
@click.option("--docker", is_flag=True, default=None, help="Let the agent manage containers (the group docker).")
@click.option("--keep-enabled", is_flag=True, help="Let systemd itself start the units at boot as before.")
@click.option("--force", is_flag=True, help="Also replace files that were edited by hand.")
@click.option("--no-start", is_flag=True, help="Neither start nor restart it now.")
@click.option("--node", help="Name of this node in the stack file.")
@click.option("--node-address", metavar="HOST", help="Address at which other nodes reach this one.")
@click.option("--api-bind", metavar="HOST:PORT", help="Where the HTTP API listens.")
@click.option("--api-allow-insecure-bind", is_flag=True, default=None, help="Allow it beyond loopback without TLS.")
@settings_options(*FLAGS)
def install(
    invocation: Invocation,
    role: str,
    dry_run: bool,
    folder: str,
    user: str | None,
    units: tuple[str, ...],
    stack_file: Path | None,
    docker: bool | None,
    keep_enabled: bool,
    force: bool,
    no_start: bool,
) -> None:
    """Install a node agent or an orchestrator as a systemd service of this machine, or bring one up to date.

    The settings in force now (flags, environment, configuration file) are written down. Units that the agent is to
    manage are not started at boot by systemd itself any more: the leader starts them, in order. A second run changes
    nothing; services run on in any case.
    """
    from citadel_consul.installation.installing import install as carry_out
    from citadel_consul.installation.installing import plan_installation
    from citadel_consul.installation.places import Root

    root = Root(Path(folder).absolute())
    wanted = (*units, *_units_of(stack_file, invocation)) if units or stack_file else None
    choices = _choices(root, role, user=user, units=wanted, docker=docker)
    settings = _settings(root, invocation)
    plan = plan_installation(root, choices, settings, force=force, keep_enabled=keep_enabled)
    if dry_run:
        _show(invocation, plan)
        return
    result = carry_out(plan, start=not no_start, before_start=lambda: _warn(plan, settings))
    _tell(invocation, plan, result)


def _settings(root: Root, invocation: Invocation) -> Settings:
    """The settings to write down: for another root folder, its own configuration file goes before this machine's."""
    from citadel_consul.config.settings import load_settings
    from citadel_consul.installation.places import CONFIG

    given = click.get_current_context().params
    installed = root.path(CONFIG)
    if root.is_machine or given["config_path"] is not None or not installed.exists():
        return invocation.settings
    return load_settings({name: given[name] for name in (*SHARED_FLAGS, *FLAGS)}, None, installed)


def _choices(root: Root, role: str, *, user: str | None, units: tuple[str, ...] | None, docker: bool | None) -> Choices:
    """What was asked for; what was not asked for now is as it was installed."""
    from citadel_consul.installation.blueprint import Choices
    from citadel_consul.installation.places import ACCOUNT
    from citadel_consul.installation.program import check_reachable, find_program, protect_home
    from citadel_consul.installation.record import InstalledRole, Record, read_record

    record = read_record(root) or Record(user=user or ACCOUNT)
    before: InstalledRole = record.roles.get(role, InstalledRole(""))
    program, account = find_program(), user or record.user
    if root.is_machine:
        check_reachable(program, account)
    return Choices(
        role,
        str(program),
        account,
        tuple(sorted(set(before.units if units is None else units))),
        before.docker if docker is None else docker,
        protect_home(program),
    )


def _units_of(stack_file: Path | None, invocation: Invocation) -> tuple[str, ...]:
    """The units of this node that a stack file names."""
    if stack_file is None:
        return ()
    from citadel_consul.cli.stackfile import load
    from citadel_consul.installation.managed import units_on

    stack, settings = load(stack_file, invocation), invocation.settings
    return units_on(stack.name, stack.services.values(), settings.node, settings.node_address or "")


def _show(invocation: Invocation, plan: Installation) -> None:
    """Print every file as it would be, and what else would be done."""
    if invocation.output != "table":
        files = [
            {"file": s.place, "fate": s.fate, "content": s.planned.content if s.planned is not None else None}
            for s in plan.steps
        ]
        answer = {"role": plan.choices.role, "written": False, "files": files, "taken_over": dict(plan.take_over)}
        print_answer(answer, invocation.output)
        return
    for step in plan.steps:
        mode = f", mode {step.planned.mode:04o}" if step.planned is not None else ""
        click.secho(f"--- {step.place} ({step.fate}{mode})", bold=True)
        if step.planned is not None:
            click.echo(step.planned.content)
    for unit in plan.take_over:
        click.echo(f"{unit} would not be started at boot by systemd any more: the leader starts it, in order")
    click.echo(f"{plan.unit} would be enabled. Nothing was written (dry run).")


def _warn(plan: Installation, settings: Settings) -> None:
    """Say what will make the unit fail, to somebody who can mend it."""
    from citadel_consul.installation.hindrances import hindrances

    if plan.root.is_machine:
        for hindrance in hindrances(plan.choices, settings):
            click.echo(f"warning: {hindrance}", err=True)


def _tell(invocation: Invocation, plan: Installation, result: Result) -> None:
    if invocation.output != "table":
        files = [{"file": step.place, "fate": step.fate} for step in plan.steps]
        answer = {
            "role": plan.choices.role,
            "written": True,
            "changed": result.changed,
            "files": files,
            "taken_over": dict(plan.take_over),
            "started": result.started,
        }
        print_answer(answer, invocation.output)
        return
    for step in plan.steps:
        click.echo(f"{step.place}: {WORDS[step.fate]}")
    for unit in plan.take_over:
        click.echo(f"{unit}: not started at boot by systemd any more; the leader starts it, in order")
    if not result.changed:
        click.echo(f"{plan.unit}: nothing to change")
    elif result.started == "ready":
        click.echo(f"{plan.unit}: enabled and ready")
    elif result.started == "waiting":
        click.echo(f"{plan.unit}: enabled and started; systemctl status {plan.unit} says what it waits for")
    else:
        click.echo(f"{plan.unit}: enabled; start it with: systemctl start {plan.unit}")
