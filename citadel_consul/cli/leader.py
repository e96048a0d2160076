"""leader: who leads, and having another lead."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from citadel_consul.cli.invocation import Invocation, caller, command_options, run
from citadel_consul.cli.printing import print_answer
from citadel_consul.errors import NoLeader

if TYPE_CHECKING:
    from citadel_consul.consul.client import ConsulClient
    from citadel_consul.store.documents import LeaderRecord

HANDOVER_SECONDS = 10.0


@click.group(epilog="Example: citadel leader transfer hx-db-01")
def leader() -> None:
    """Show who leads, or have another orchestrator lead."""


@leader.command(epilog="Example: citadel leader show -o json")
@command_options
def show(invocation: Invocation) -> None:
    """Show the leader, its epoch, since when it leads, and who stands by."""
    run(_show(invocation))


@leader.command("step-down", epilog="Example: citadel leader step-down")
@command_options
def step_down(invocation: Invocation) -> None:
    """Have the leader hand over to any standby; refused if there is none."""
    run(_transfer(invocation, ""))


@leader.command(epilog="Example: citadel leader transfer hx-db-01")
@click.argument("node", metavar="NODE[:PORT]")
@command_options
def transfer(invocation: Invocation, node: str) -> None:
    """Have the leader hand over to the orchestrator on NODE."""
    run(_transfer(invocation, node))


async def _show(invocation: Invocation) -> None:
    from citadel_consul.orchestrator.handover import candidates

    async with invocation.consul() as client:
        stack = await invocation.stack(client)
        record, epoch = await _leader(client, stack)
        found = await candidates(client, stack)
    standbys = [c.id for c in found if record is None or c.id != record.id]
    if invocation.output != "table":
        print_answer({"leader": record, "epoch": epoch, "standbys": standbys}, invocation.output)
        return
    if record is None:
        click.echo(f"stack {stack}: nobody leads")
    else:
        since = datetime.fromtimestamp(record.since, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        click.echo(f"stack {stack}: {record.id} leads with epoch {epoch} since {since} (API {record.api})")
    click.echo(f"standing by: {', '.join(standbys) or 'nobody'}")


async def _transfer(invocation: Invocation, to: str) -> None:
    from citadel_consul.orchestrator.handover import request_handover

    async with invocation.consul() as client:
        stack = await invocation.stack(client)
        ended = await request_handover(client, stack, to, caller())
        began = time.monotonic()
        while time.monotonic() - began < HANDOVER_SECONDS:
            record, epoch = await _leader(client, stack)
            if record is not None and epoch is not None and epoch > ended:
                click.echo(f"stack {stack}: {record.id} leads now, with epoch {epoch}")
                return
            await asyncio.sleep(0.05)
    raise NoLeader(f"epoch {ended} has not ended within {HANDOVER_SECONDS:g} s; see citadel leader show")


async def _leader(client: ConsulClient, stack: str) -> tuple[LeaderRecord | None, int | None]:
    from citadel_consul.store import documents
    from citadel_consul.store.keys import Keys

    entry = await client.kv_get(Keys(stack).leader)
    if entry is None or entry.session is None:
        return None, None
    return documents.LEADER.decode(entry.value), entry.modify_index
