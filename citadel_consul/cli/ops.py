"""ops: the operations of a stack."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from citadel_consul.cli.completing import complete_operation
from citadel_consul.cli.invocation import Invocation, caller, command_options, run
from citadel_consul.cli.operate import point_to_output
from citadel_consul.cli.printing import coloured, print_answer, print_table
from citadel_consul.cli.progress import MARKS, display_for, follow_to_end, raise_unless_succeeded, seconds_of
from citadel_consul.cli.spans import clock
from citadel_consul.core.answers.operations import operation_answer, operations_answer
from citadel_consul.core.operation import Operation, Step
from citadel_consul.errors import InvalidInput

if TYPE_CHECKING:
    from citadel_consul.consul.client import ConsulClient
    from citadel_consul.store.keys import Keys

_ID = re.compile(r"[A-Za-z0-9-]+")


@click.group(epilog="Example: citadel ops cancel 20250715T143000123456-k7x2")
def ops() -> None:
    """List, show or cancel operations."""


@ops.command("list", epilog="Example: citadel ops list --all")
@click.option("--all", "everything", is_flag=True, help="Also those that ended long ago.")
@command_options
def list_operations(invocation: Invocation, everything: bool) -> None:
    """List operations, newest last; unfinished ones and the last ten that ended."""
    run(_list(invocation, everything=everything))


@ops.command(epilog="Example: citadel ops show 20250715T143000123456-k7x2 -o json")
@click.argument("operation_id", metavar="ID", shell_complete=complete_operation)
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends; the exit status is its result.")
@command_options
def show(invocation: Invocation, operation_id: str, follow: bool) -> None:
    """Show an operation with its steps, and what each waits for."""
    run(_show(invocation, operation_id, follow=follow))


@ops.command(epilog="Example: citadel ops cancel 20250715T143000123456-k7x2")
@click.argument("operation_id", metavar="ID", shell_complete=complete_operation)
@command_options
def cancel(invocation: Invocation, operation_id: str) -> None:
    """End an operation: what has not begun is skipped, what has begun is seen through."""
    run(_cancel(invocation, operation_id))


async def _list(invocation: Invocation, *, everything: bool) -> None:
    operations = (await invocation.read_once()).all_operations()
    if not everything:
        ended = [op for op in operations if op.ended][-10:]
        operations = tuple(op for op in operations if not op.ended or op in ended)
    if invocation.output != "table":
        print_answer(operations_answer(operations), invocation.output)
        return
    rows = [
        (op.id, op.kind, op.state, " ".join(op.targets), clock(op.requested_at), _took(op), op.requested_by, _why(op))
        for op in operations
    ]
    print_table(("ID", "KIND", "STATE", "TARGETS", "REQUESTED", "SECONDS", "BY", ""), rows)


async def _show(invocation: Invocation, operation_id: str, *, follow: bool) -> None:
    async with invocation.consul() as client:
        keys = await invocation.keys(client)
        operation = await _find(client, keys, operation_id)
        if follow:
            operation = await follow_to_end(client, keys, operation, display_for(invocation.output))
    if invocation.output != "table":
        print_answer(operation_answer(operation), invocation.output)
    elif not follow:
        _print(operation)
    if follow:
        point_to_output(operation)
        raise_unless_succeeded(operation)


async def _find(client: ConsulClient, keys: Keys, operation_id: str) -> Operation:
    """The operation of that id, with its steps. Raises InvalidInput if there is none."""
    from citadel_consul.store.documents import UndecodableError
    from citadel_consul.store.reading import read_operation

    found = None
    if _ID.fullmatch(operation_id):  # anything else would be part of a path
        try:
            found = await read_operation(client, keys, operation_id)
        except UndecodableError as error:
            raise InvalidInput.at(keys.operation(operation_id), str(error)) from error
    if found is None:
        raise InvalidInput.at("", f"there is no operation {operation_id!r}", "citadel ops list shows them")
    return found


def _print(operation: Operation) -> None:
    """An operation at a glance: its head, then its steps."""
    rows = [
        ("state", f"{coloured(operation.state)} {_why(operation)}"),
        ("targets", " ".join(operation.targets)),
        ("requested", f"{clock(operation.requested_at)} by {operation.requested_by or 'somebody'}"),
        ("reason", operation.options.reason),
        ("took", _took(operation) and f"{_took(operation)} s"),
        ("warnings", "; ".join(operation.warnings)),
    ]
    click.echo(click.style(f"{operation.kind} {operation.id}", bold=True))
    for name, text in rows:
        if text.strip():
            click.echo(f"  {name:<10} {text.strip()}")
    if operation.steps:
        click.echo()
        print_table(
            ("", "STEP", "INSTANCE", "STATE", "SECONDS", ""),
            [(MARKS[s.state], s.action, s.instance, s.state, _seconds(s), s.detail) for s in operation.steps],
        )


async def _cancel(invocation: Invocation, operation_id: str) -> None:
    from citadel_consul.store.requests import cancel as request_cancel

    async with invocation.consul() as client:
        keys = await invocation.keys(client)
        await _find(client, keys, operation_id)
        await request_cancel(client, keys, operation_id, by=caller())
    if invocation.output != "table":
        print_answer({"operation": operation_id, "cancelled_by": caller()}, invocation.output)
        return
    click.echo(f"asked for the end of operation {operation_id}; citadel ops show {operation_id} --follow waits for it")


def _why(operation: Operation) -> str:
    if operation.waits_for is not None and not operation.ended:
        return f"waits for {operation.waits_for}"
    return operation.detail


def _seconds(step: Step) -> str:
    seconds = seconds_of(step)
    return "" if seconds is None else f"{seconds:.2f}"


def _took(operation: Operation) -> str:
    if operation.started_at is None or operation.ended_at is None:
        return ""
    return f"{operation.ended_at - operation.started_at:.2f}"
