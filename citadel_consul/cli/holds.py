"""hold, unhold: keep citadel's hands off a service, a node or the stack, and let it go on."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from citadel_consul.cli.invocation import Invocation, caller, command_options, run
from citadel_consul.cli.printing import print_answer
from citadel_consul.cli.spans import clock
from citadel_consul.errors import InvalidInput

if TYPE_CHECKING:
    from citadel_consul.core.snapshot import Hold, Snapshot

STACK = "stack"
SCOPES = ("service", "node")


@click.command(epilog="Example: citadel hold redis --for 30m --reason 'moving its disk'; citadel hold node hx-db-01")
@click.argument("what", nargs=-1, required=True, metavar="SERVICE | node NAME | stack")
@click.option("--for", "duration", metavar="DURATION", help="How long, e.g. 30m; default: until it is taken back.")
@click.option("--reason", default="", help="Why, for the record.")
@click.option("--maintenance", is_flag=True, help="Take it out of DNS as well (Consul's maintenance mode).")
@command_options
def hold(invocation: Invocation, what: tuple[str, ...], duration: str | None, reason: str, maintenance: bool) -> None:
    """Stop every automatic action on a service, on all of a node, or on the stack.

    What fails is not recovered as long as the hold stands. What people ask for is done as ever. A second hold on the
    same takes the place of the first.
    """
    scope, name = parse_scope(what)
    run(_hold(invocation, scope, name, seconds=parse_for(duration), reason=reason, maintenance=maintenance))


@click.command(epilog="Example: citadel unhold redis; citadel unhold stack")
@click.argument("what", nargs=-1, required=True, metavar="SERVICE | node NAME | stack")
@command_options
def unhold(invocation: Invocation, what: tuple[str, ...]) -> None:
    """Take a hold back: from now on, what fails is recovered again."""
    scope, name = parse_scope(what)
    run(_unhold(invocation, scope, name))


def parse_scope(words: tuple[str, ...]) -> tuple[str, str]:
    """Scope and name of a hold from ``SERVICE``, ``service NAME``, ``node NAME`` or ``stack``."""
    if len(words) == 1 and words[0] == STACK:
        return STACK, ""
    if len(words) == 1 and words[0] not in SCOPES:
        return "service", words[0]
    if len(words) == 2 and words[0] in SCOPES:
        return words[0], words[1]
    raise InvalidInput.at("", f"cannot tell what {' '.join(words)!r} is", "name a service, 'node NAME', or 'stack'")


def parse_for(text: str | None) -> float | None:
    """The seconds that a hold stands; None for one without an end."""
    if text is None:
        return None
    from citadel_consul.config.durations import parse_duration

    try:
        seconds = parse_duration(text)
    except InvalidInput as error:
        raise InvalidInput([replace(problem, place="--for") for problem in error.problems]) from None
    if seconds <= 0.0:
        raise InvalidInput.at("--for", "a hold of no time holds nothing", "write it like 30m or 2h")
    return seconds


async def _hold(
    invocation: Invocation, scope: str, name: str, *, seconds: float | None, reason: str, maintenance: bool
) -> None:
    from citadel_consul.core.snapshot import Hold
    from citadel_consul.store.holds import write_hold

    until = None if seconds is None else time.time() + seconds
    wanted = Hold(scope, name, by=caller(), reason=reason, until=until, maintenance=maintenance)
    async with invocation.consul() as client:
        state = await invocation.read(client)
        _check_exists(state.snapshot(), scope, name)
        await write_hold(client, state.keys, wanted)
    _say(invocation, wanted, f"{_place(scope, name)} is held {_how_long(wanted)}")


async def _unhold(invocation: Invocation, scope: str, name: str) -> None:
    from citadel_consul.core.snapshot import Hold
    from citadel_consul.store.holds import remove_hold

    async with invocation.consul() as client:
        if not await remove_hold(client, await invocation.keys(client), scope, name):
            raise InvalidInput.at("", f"{_place(scope, name)} is not held", "citadel status shows the holds")
    _say(invocation, Hold(scope, name), f"{_place(scope, name)} is held no longer")


def _check_exists(snapshot: Snapshot, scope: str, name: str) -> None:
    """A hold on what does not exist would hold nothing, and nobody would notice before it matters."""
    if scope == "service" and name not in snapshot.specs:
        raise InvalidInput.at("", f"unknown service {name!r}", "citadel services lists them")
    nodes = {node for spec in snapshot.specs.values() for node in spec.nodes} | snapshot.agents
    if scope == "node" and name not in nodes:
        raise InvalidInput.at("", f"unknown node {name!r}", f"the stack is on {', '.join(sorted(nodes)) or 'no node'}")


def _say(invocation: Invocation, changed: Hold, sentence: str) -> None:
    if invocation.output == "table":
        click.echo(sentence)
    else:
        print_answer(changed, invocation.output)


def _place(scope: str, name: str) -> str:
    return "the stack" if scope == STACK else name if scope == "service" else f"node {name}"


def _how_long(hold: Hold) -> str:
    if hold.until is None:
        return "until it is taken back"
    return f"until {clock(hold.until)}"
