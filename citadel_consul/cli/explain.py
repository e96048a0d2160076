"""explain: why a service does not run, and when it will."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from citadel_consul.cli.completing import complete_service
from citadel_consul.cli.invocation import Invocation, command_options, run
from citadel_consul.cli.printing import print_answer
from citadel_consul.core.model import Strength

if TYPE_CHECKING:
    from citadel_consul.cli.explaining import Explanation, Need
    from citadel_consul.cli.screen import Line

RECENT_OPERATIONS = 20
"""How many ended operations are looked through for the last that touched the service."""


@click.command(epilog="Example: citadel explain api-gateway")
@click.argument("service", shell_complete=complete_service)
@command_options
def explain(invocation: Invocation, service: str) -> None:
    """Say why a service does not run, what it waits for, when it will run, and what to do about it."""
    run(_explain(invocation, service))


async def _explain(invocation: Invocation, service: str) -> None:
    from citadel_consul.api.reading import with_steps
    from citadel_consul.cli.explaining import Case, explain_service
    from citadel_consul.cli.inspect import check_services
    from citadel_consul.cli.looking import look
    from citadel_consul.cli.screen import draw, terminal_width

    async with invocation.consul() as client:
        seen = await look(client, await invocation.stack(client), invocation.defaults)
        check_services(seen.snapshot.specs, (service,))
        recent = [op for op in seen.snapshot.operations if op.ended][-RECENT_OPERATIONS:]
        ended = await with_steps(client, seen.state.keys, recent, lambda _: True)
    led = seen.leadership is not None
    explanation = explain_service(Case(seen.snapshot, service, seen.at, led, seen.outputs, ended))
    if invocation.output != "table":
        print_answer(explanation, invocation.output)
        return
    for line in draw(_lines(explanation), terminal_width()):
        click.echo(line)


def _asks(need: Need) -> str:
    weak = "" if need.strength == Strength.HARD else f", {need.strength}"
    return f"has to be {need.condition}{weak}; is"


def _lines(found: Explanation) -> list[Line]:
    from citadel_consul.cli.screen import Line, Piece, columns, word

    head = (Piece(found.service, bold=True), Piece(" is "), word(str(found.status), bold=True), Piece(": "))
    lines = [Line(head, found.why)]
    rows = [("when", found.when), ("do", found.do)]
    lines += [Line((Piece(f"  {name:<6}", dim=True),), text) for name, text in rows if text]
    leads = ["  because ", *["          "] * len(found.chain)]
    lines += [Line((Piece(lead, dim=True),), text) for lead, text in zip(leads, found.chain, strict=False)]
    if found.needs:
        marks = {True: Piece("✔", fg="green"), False: Piece("✘", fg="red")}
        lines += columns(
            [(marks[n.met], Piece(n.dependency), Piece(_asks(n)), word(str(n.status))) for n in found.needs]
        )
    return lines
