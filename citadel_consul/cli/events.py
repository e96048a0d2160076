"""events: the history of a stack."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from citadel_consul.cli.completing import complete_service
from citadel_consul.cli.invocation import Invocation, command_options, run
from citadel_consul.cli.printing import print_answer
from citadel_consul.cli.watching import print_document

if TYPE_CHECKING:
    from citadel_consul.store.documents import Event


@click.command(epilog="Example: citadel events -f api-gateway")
@click.argument("service", required=False, shell_complete=complete_service)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
@click.option("-n", "--last", default=50, show_default=True, type=click.IntRange(min=0), help="How many events back.")
@command_options
def events(invocation: Invocation, service: str | None, follow: bool, last: int) -> None:
    """Show what happened: when, what, to which service, and who says so."""
    run(_follow(invocation, service, last) if follow else _list(invocation, service, last))


async def _list(invocation: Invocation, service: str | None, last: int) -> None:
    from citadel_consul.store.history import read_events

    async with invocation.consul() as client:
        found = await read_events(client, await invocation.keys(client))
    chosen = [event for event in found if service in (None, event.service)]
    chosen = chosen[-last:] if last else []
    if invocation.output != "table":
        print_answer({"events": chosen}, invocation.output)
        return
    for event in chosen:
        click.echo(_line(event))


async def _follow(invocation: Invocation, service: str | None, last: int) -> None:
    from citadel_consul.store.history import follow_events

    async with invocation.consul() as client:
        keys = await invocation.keys(client)
        async with aclosing(follow_events(client, keys, last=last)) as stream:
            async for event in stream:
                if service in (None, event.service):
                    _print_one(event, invocation.output)


def _print_one(event: Event, output: str) -> None:
    if output == "table":
        click.echo(_line(event))
    else:
        print_document(event, output)


def _line(event: Event) -> str:
    moment = datetime.fromtimestamp(event.at, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    where = f"{event.service}@{event.node}" if event.service and event.node else event.service or event.node or "-"
    return f"{moment}  {event.kind:<22} {where:<32} {event.message}  ({event.by})"
