"""apply, validate, schema: the stack file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from citadel_consul.cli.invocation import FORMATS, Invocation, command_options, run
from citadel_consul.cli.printing import print_answer

if TYPE_CHECKING:
    from citadel_consul.core.model import Stack
    from citadel_consul.store.applying import Difference


@click.command(epilog="Example: citadel apply stack.yaml --dry-run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show the difference and write nothing.")
@click.option("--prune", is_flag=True, help="Also remove services and edges that the file does not have.")
@command_options
def apply(invocation: Invocation, file: Path, dry_run: bool, prune: bool) -> None:
    """Write the services and edges of a stack file into Consul, and show what that changes.

    Applying the same file again changes nothing. Nothing is started or stopped by it.
    """
    run(_apply(invocation, load(file, invocation), dry_run=dry_run, prune=prune))


@click.command(epilog="Example: citadel validate stack.yaml")
@click.argument("file", type=click.Path(path_type=Path))
@command_options
def validate(invocation: Invocation, file: Path) -> None:
    """Check a stack file; every problem is named with its line."""
    stack = load(file, invocation)
    if invocation.output != "table":
        print_answer(
            {"stack": stack.name, "services": len(stack.services), "edges": len(stack.edges)}, invocation.output
        )
        return
    click.echo(f"{file}: stack {stack.name}, {len(stack.services)} services, {len(stack.edges)} edges: valid")


@click.command(epilog="Example: citadel schema > stack.schema.json")
@click.option("-o", "--output", type=click.Choice(FORMATS), default="json", show_default=True, help="Format.")
def schema(output: str) -> None:
    """Print the JSON Schema of the stack file, for editors. It has no form as a table: that is JSON as well."""
    from citadel_consul.config.stackfile import stack_json_schema

    print_answer(stack_json_schema(), output)


def load(file: Path, invocation: Invocation) -> Stack:
    """The stack that ``file`` describes; the settings say the interval of checks that have none."""
    from citadel_consul.config.stackfile import load_stack

    return load_stack(file, check_interval_seconds=invocation.settings.health_check_interval_seconds)


async def _apply(invocation: Invocation, stack: Stack, *, dry_run: bool, prune: bool) -> None:
    from citadel_consul.store.applying import read_difference, write_difference

    async with invocation.consul() as client:
        difference = await read_difference(client, stack, prune=prune)
        if not dry_run:
            await write_difference(client, difference)
    if invocation.output != "table":
        print_answer({"stack": stack.name, "written": not dry_run, "changes": difference.changes}, invocation.output)
        return
    show_difference(difference, dry_run=dry_run)


def show_difference(difference: Difference, *, dry_run: bool = False) -> None:
    """Print what a stack file changes, a line for each key."""
    signs = {"add": click.style("+", fg="green"), "change": click.style("~", fg="yellow")}
    for change in difference.changes:
        sign = signs.get(change.kind, click.style("-", fg="red"))
        click.echo(f"{sign} {change.name}" + (f": {change.detail}" if change.detail else ""))
    for name in difference.kept:
        click.echo(f"  {name}: not in the file, kept (--prune removes it)")
    if not difference.changes:
        click.echo(f"stack {difference.stack}: nothing to change")
    elif dry_run:
        click.echo(f"stack {difference.stack}: {_changes(difference)}, nothing written (dry run)")
    else:
        click.echo(f"stack {difference.stack}: {_changes(difference)} written")


def _changes(difference: Difference) -> str:
    count = len(difference.changes)
    return "1 change" if count == 1 else f"{count} changes"
