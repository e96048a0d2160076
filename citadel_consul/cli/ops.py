"""ops: the operations of a stack."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from citadel_consul.cli.invocation import Invocation, caller, command_options, run
from citadel_consul.cli.printing import print_answer, print_table
from citadel_consul.cli.progress import Lines, display_for, follow_to_end, raise_unless_succeeded
from citadel_consul.core.operation import Operation
from citadel_consul.errors import InvalidInput


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
@click.argument("operation_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends; the exit status is its result.")
@command_options
def show(invocation: Invocation, operation_id: str, follow: bool) -> None:
    """Show an operation with its steps, and what each waits for."""
    run(_show(invocation, operation_id, follow=follow))


@ops.command(epilog="Example: citadel ops cancel 20250715T143000123456-k7x2")
@click.argument("operation_id", metavar="ID")
@command_options
def cancel(invocation: Invocation, operation_id: str) -> None:
    """End an operation: what has not begun is skipped, what has begun is seen through."""
    run(_cancel(invocation, operation_id))


async def _list(invocation: Invocation, *, everything: bool) -> None:
    from citadel_consul.store.reading import read_state

    async with invocation.consul() as client:
        state = await read_state(client, await invocation.stack(client), invocation.defaults)
    operations = state.all_operations()
    if not everything:
        ended = [op for op in operations if op.ended][-10:]
        operations = tuple(op for op in operations if not op.ended or op in ended)
    if invocation.output != "table":
        print_answer({"operations": operations}, invocation.output)
        return
    rows = [
        (op.id, op.kind, op.state, " ".join(op.targets), _clock(op.requested_at), _took(op), op.requested_by, _why(op))
        for op in operations
    ]
    print_table(("ID", "KIND", "STATE", "TARGETS", "REQUESTED", "SECONDS", "BY", ""), rows)


async def _show(invocation: Invocation, operation_id: str, *, follow: bool) -> None:
    from citadel_consul.store.reading import read_operation

    async with invocation.consul() as client:
        keys = await invocation.keys(client)
        operation = await read_operation(client, keys, operation_id)
        if operation is None:
            raise InvalidInput.at("", f"there is no operation {operation_id!r}", "citadel ops list shows them")
        if follow:
            operation = await follow_to_end(client, keys, operation, display_for(invocation.output))
            raise_unless_succeeded(operation)
    if invocation.output != "table":
        print_answer(operation, invocation.output)
    elif not follow:
        click.echo(f"{operation.kind} {operation.id}: {operation.state} {_why(operation)}".rstrip())
        Lines().show(operation)


async def _cancel(invocation: Invocation, operation_id: str) -> None:
    from citadel_consul.store.requests import cancel as request_cancel

    async with invocation.consul() as client:
        await request_cancel(client, await invocation.keys(client), operation_id, by=caller())
    click.echo(f"asked for the end of operation {operation_id}")


def _why(operation: Operation) -> str:
    if operation.waits_for is not None and not operation.ended:
        return f"waits for {operation.waits_for}"
    return operation.detail


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _took(operation: Operation) -> str:
    if operation.started_at is None or operation.ended_at is None:
        return ""
    return f"{operation.ended_at - operation.started_at:.2f}"
