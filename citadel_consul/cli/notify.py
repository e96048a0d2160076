"""notify: try the receivers of notifications, and see what they were told."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from citadel_consul.cli.invocation import Invocation, caller, command_options, run
from citadel_consul.cli.printing import coloured, print_answer, print_table
from citadel_consul.core.notice import Notice, Transition
from citadel_consul.errors import CitadelError, InvalidInput, OperationFailed

if TYPE_CHECKING:
    from citadel_consul.config.receivers import Receivers
    from citadel_consul.notification.channel import Channel


@click.group(epilog="Example: citadel notify test oncall --config /opt/citadel/config/orchestrator.yaml")
def notify() -> None:
    """Try the receivers of notifications, or list what was told to whom."""


@notify.command(epilog="Example: citadel notify test oncall --transition closed")
@click.argument("receiver", required=False)
@click.option(
    "--transition",
    type=click.Choice([str(transition) for transition in Transition]),
    default=str(Transition.OPENED),
    show_default=True,
    help="Which kind of notice.",
)
@command_options
def test(invocation: Invocation, receiver: str | None, transition: str) -> None:
    """Send a notice, marked as a test, to each receiver of this configuration, or to one.

    It is sent from here, once, and at once, whatever the receiver's `when` says. Nothing is noted in Consul.
    """
    answer = run(_rehearse(invocation, receiver, Transition(transition)))
    if invocation.output != "table":
        print_answer({"receivers": answer}, invocation.output)
    else:
        print_table(
            ("RECEIVER", "RESULT", "SECONDS", ""),
            [(row["receiver"], row["result"], f"{row['seconds']:.2f}", row["error"]) for row in answer],
        )
    failed = [str(row["receiver"]) for row in answer if row["result"] != "delivered"]
    if failed:
        raise OperationFailed(f"not told: {', '.join(failed)}")


@notify.command(name="list", epilog="Example: citadel notify list -n 5")
@click.option("-n", "--last", default=20, show_default=True, type=click.IntRange(min=0), help="How many notices back.")
@command_options
def list_(invocation: Invocation, last: int) -> None:
    """List what was told, to whom, and what is still on its way."""
    run(_list(invocation, last))


async def _rehearse(invocation: Invocation, receiver: str | None, transition: Transition) -> list[dict[str, object]]:
    from citadel_consul.notification.channel import open_channels
    from citadel_consul.notification.rehearsal import rehearsal

    settings = invocation.settings
    chosen = _chosen(settings.receivers, receiver)
    directories = (settings.template_dir,) if settings.template_dir is not None else ()
    channels = open_channels(chosen, directories)
    stack = settings.stack or "default"
    notice = rehearsal(transition, stack=stack, leader=f"nobody; asked for by {caller()}", at=time.time())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_deliver(channel, notice)) for channel in channels]
    return [task.result() for task in tasks]


def _chosen(receivers: Receivers, name: str | None) -> Receivers:
    from citadel_consul.config.receivers import Receivers
    from citadel_consul.config.suggestions import suggest

    if name is None:
        return receivers
    found = tuple(item for item in receivers.items if item.name == name)
    if not found:
        known = [item.name for item in receivers.items]
        raise InvalidInput.at("", f"no receiver is called {name!r}", suggest(name, known, "receivers"))
    return Receivers(found)


async def _deliver(channel: Channel, notice: Notice) -> dict[str, object]:
    began = time.monotonic()
    error = ""
    try:
        await channel.deliver(notice)
    except CitadelError as failure:
        error = str(failure)
    finally:
        await channel.aclose()
    seconds = round(time.monotonic() - began, 3)
    return {
        "receiver": channel.name,
        "result": "failed" if error else "delivered",
        "seconds": seconds,
        "error": error,
        "notice": notice.id,
    }


async def _list(invocation: Invocation, last: int) -> None:
    from citadel_consul.notification.document import document_of
    from citadel_consul.store.postings import read_postings

    async with invocation.consul() as client:
        found = await read_postings(client, await invocation.keys(client))
    chosen = found[-last:] if last else []
    if invocation.output != "table":
        notices = [{**document_of(posting.notice), "receivers": posting.receivers} for posting in chosen]
        print_answer({"notices": notices}, invocation.output)
        return
    for posting in chosen:
        at = datetime.fromtimestamp(posting.notice.at, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        click.echo(f"{at}  {posting.notice.title}")
        for name, delivery in posting.receivers.items():
            why = f": {delivery.error}" if delivery.error else ""
            colour = "succeeded" if delivery.state == "delivered" else str(delivery.state)
            click.echo(f"    {coloured(colour, f'{name}: {delivery.state}{why}')}")
