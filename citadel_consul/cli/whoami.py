"""whoami: which Consul, node, stack and token are in use."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from citadel_consul.cli.invocation import Invocation, command_options, run
from citadel_consul.cli.printing import print_answer
from citadel_consul.errors import ConsulRefused, Refused

if TYPE_CHECKING:
    from citadel_consul.consul.client import ConsulClient
    from citadel_consul.consul.identity import Token
    from citadel_consul.doctor.abilities import Ability
    from citadel_consul.doctor.identity import WhoAmI


@click.command(epilog="Example: citadel whoami -o json | jq .token.accessor")
@command_options
def whoami(invocation: Invocation) -> None:
    """Show which Consul, node, stack and token are in use, who leads, and what the token may do.

    The token's secret is not shown, only its public name (the accessor).
    """
    found, note = run(_ask(invocation))
    if invocation.output != "table":
        print_answer(_document(found), invocation.output)
        return
    for name, text in _rows(found, note):
        click.echo(f"{click.style(name.ljust(8), bold=True)} {text}")


async def _ask(invocation: Invocation) -> tuple[WhoAmI, str]:
    """The answer, and why the stack is not certain."""
    from citadel_consul.doctor.identity import who_am_i

    async with invocation.consul() as client:
        stack, note = await _stack(invocation, client)
        return await who_am_i(client, invocation.settings, stack), note


async def _stack(invocation: Invocation, client: ConsulClient) -> tuple[str, str]:
    try:
        return await invocation.stack(client), ""
    except Refused as error:  # several
        return "", str(error)
    except ConsulRefused:
        return "default", "the token may not list stacks"


def _rows(found: WhoAmI, note: str) -> list[tuple[str, str]]:
    rows = [("consul", _consul(found)), ("node", found.node)]
    rows.append(("stack", f"{found.stack} ({note})" if found.stack and note else found.stack or note))
    if found.stack:
        rows.append(("leader", _leader(found)))
    rows.append(("token", _token(found)))
    for number, ability in enumerate(found.abilities if found.acls else ()):
        rows.append(("may" if number == 0 else "", _ability(ability)))
    return rows


def _consul(found: WhoAmI) -> str:
    me = found.consul
    if me is None:
        return f"{found.address} (the token may not see the agent)"
    kind = "server" if me.server else "client"
    return f"{found.address}: Consul {me.version}, {kind}, node {me.node}, datacenter {me.datacenter}"


def _leader(found: WhoAmI) -> str:
    if found.leader is None:
        return "nobody"
    return f"{found.leader.id} with epoch {found.epoch} (API {found.leader.api})"


def _token(found: WhoAmI) -> str:
    if not found.acls:
        return "not needed: access control is off"
    origin = f" (from {found.token_origin})" if found.token_origin else ""
    if found.token is None:
        return f"not known to Consul{origin}" if origin else "none"
    token = found.token
    named = [f"accessor {token.accessor}", *([token.description] if token.description else [])]
    named += [f"{kind} {', '.join(names)}" for kind, names in _grants(token) if names]
    named += [f"until {token.expires}"] if token.expires else []
    return "; ".join(named) + origin


def _grants(token: Token) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return (("policies", token.policies), ("roles", token.roles))


def _ability(ability: Ability) -> str:
    if ability.allowed is None:
        return f"?  {ability.what}"
    return f"✔  {ability.what}" if ability.allowed else f"-  {ability.what}: lacks {', '.join(ability.missing)}"


def _document(found: WhoAmI) -> dict[str, Any]:
    """The answer for programs. Of the agent's configuration, which has no contract, nothing is passed on."""
    me = found.consul
    agent = None if me is None else {key: getattr(me, key) for key in ("node", "datacenter", "version", "server")}
    shown = {
        key: getattr(found, key) for key in ("address", "node", "leader", "epoch", "acls", "token_origin", "refusal")
    }
    return {
        **shown,
        "stack": found.stack or None,
        "consul": agent,
        "token": None if found.token is None else asdict(found.token),
        "abilities": found.abilities,
    }
