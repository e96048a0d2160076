"""config: every setting, its value, and where it came from."""

from __future__ import annotations

import click

from citadel_consul.cli.invocation import Invocation, command_options
from citadel_consul.cli.printing import print_answer, print_table


@click.command(epilog="Example: ORCHESTRATOR_RECOVERY_ATTEMPTS=5 citadel config")
@command_options
def config(invocation: Invocation) -> None:
    """Show each setting with its effective value and its origin; secrets are masked."""
    rows = invocation.settings.origins()
    if invocation.output != "table":
        print_answer({row.name: {"value": row.value, "origin": row.origin} for row in rows}, invocation.output)
        return
    print_table(("SETTING", "VALUE", "ORIGIN"), [(row.name, row.value, row.origin) for row in rows])
