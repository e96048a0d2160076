"""version: which citadel, which Consul, which Python."""

from __future__ import annotations

import platform

import click

from citadel_consul import __version__
from citadel_consul.cli.invocation import Invocation, command_options, run
from citadel_consul.cli.printing import print_answer
from citadel_consul.errors import CitadelError


@click.command(epilog="Example: citadel version -o json")
@command_options
def version(invocation: Invocation) -> None:
    """Show the versions of citadel, of the Consul program here and of the Consul agent in use."""
    program, path = _program()
    answer = {
        "citadel": __version__,
        "python": platform.python_version(),
        "consul_program": program,
        "consul_program_path": path,
        "consul_agent": run(_agent(invocation)),
    }
    if invocation.output != "table":
        print_answer(answer, invocation.output)
        return
    click.echo(f"citadel {answer['citadel']} (Python {answer['python']})")
    click.echo(f"consul program: {program or 'none found'}" + (f" ({path})" if path else ""))
    click.echo(f"consul agent: {answer['consul_agent'] or 'none reached'}")


def _program() -> tuple[str | None, str | None]:
    """The Consul program that citadel would run; nothing is downloaded for it."""
    from citadel_consul.consul.binary import find_consul

    try:
        found = find_consul(install=False)
    except CitadelError:
        return None, None
    return found.version, str(found.path)


async def _agent(invocation: Invocation) -> str | None:
    async with invocation.consul() as client:
        try:
            return (await client.agent_self()).version
        except CitadelError:
            return None
