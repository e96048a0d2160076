"""dev: everything on one machine, for a look at a stack and for work on it.

One Consul server that keeps its data, one orchestrator, and one node agent for each node that the stack file names,
all in this process. Whatever dies, ``citadel dev`` with the same file goes on from where things stand: Consul has the
state, and the services that still run are adopted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from citadel_consul.cli.invocation import Invocation, settings_options


@click.command(epilog="Example: citadel dev examples/ai-platform/stack.yaml --once")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Bring the stack up, send one request, take it down; exit with the result.")
@click.option("--no-up", is_flag=True, help="Do not start the services; citadel up does.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where Consul and the services keep their data.")
@click.option("--api-bind", metavar="HOST:PORT", help="Where the HTTP API listens; default: 127.0.0.1:8000.")
@click.option("--debug", is_flag=True, help="Log everything to standard error, not into the data folder.")
@click.option("--verbose", is_flag=True, help="Log at level INFO to standard error, not into the data folder.")
@settings_options("api_bind", elsewhere=False)
def dev(
    invocation: Invocation,
    file: Path,
    once: bool,
    no_up: bool,
    data_dir: Path | None,
    debug: bool,
    verbose: bool,
) -> None:
    """Run Consul, an orchestrator, the node agents and a stack on this machine.

    Ctrl-C stops everything in order, and so do SIGTERM and the end of the terminal; a second one leaves the services
    running. Killed in any other way, they stay up as well, and the next call finds them and finishes what was begun.
    Other programs that want a port of Consul's are no trouble: it takes a free one.

    `--once` sends the request in smoke.yaml beside the stack file. Exit status: 0 done, 1 some part failed.
    """
    from citadel_consul.cli.devstack import run_dev

    if once and no_up:
        raise click.UsageError("--once brings the stack up, and --no-up does not: give one of them")
    logs = "debug" if debug else "verbose" if verbose else "file"
    sys.exit(run_dev(invocation, file, once=once, start=not no_up, data_dir=data_dir, logs=logs))
