"""completion: the shell's completion script."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(epilog='Example: eval "$(citadel completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell; evaluate it in the shell's start-up file."""
    from citadel_consul.cli.main import citadel

    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(citadel, {}, "citadel", "_CITADEL_COMPLETE").source())
