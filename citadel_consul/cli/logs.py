"""logs: what a service of this machine wrote."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from citadel_consul.cli.completing import complete_service
from citadel_consul.cli.invocation import Invocation, command_options, run
from citadel_consul.cli.watching import print_document
from citadel_consul.core.model import Backend, DockerBackend, SystemdBackend
from citadel_consul.errors import InvalidInput


@click.command(epilog="Example: citadel logs api-gateway -f -n 50")
@click.argument("service", metavar="SERVICE[@NODE]", shell_complete=complete_service)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("-n", "--lines", default=100, show_default=True, type=click.IntRange(min=0), help="How many lines back.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="The node agent's folder, if it is another one.")
@command_options
def logs(invocation: Invocation, service: str, follow: bool, lines: int, state_dir: Path | None) -> None:
    """Show the output of a service that runs on this machine."""
    run(_logs(invocation, service, lines, state_dir, follow=follow))


async def _logs(invocation: Invocation, target: str, lines: int, state_dir: Path | None, *, follow: bool) -> None:
    from citadel_consul.backends.logs import follow as follow_file
    from citadel_consul.backends.logs import tail

    paths = await _paths(invocation, target, state_dir)
    if not follow:
        for node, path in paths.items():
            for line in tail(path, lines):
                _print(invocation.output, node, line, labelled=len(paths) > 1)
        return
    async with asyncio.TaskGroup() as group:
        for node, path in paths.items():

            async def show(node: str = node, path: Path = path) -> None:
                async for line in follow_file(path, lines):
                    _print(invocation.output, node, line, labelled=len(paths) > 1)

            group.create_task(show())


async def _paths(invocation: Invocation, target: str, state_dir: Path | None) -> dict[str, Path]:
    """The log files of the service on this machine, by node."""
    from citadel_consul.backends.logs import log_path
    from citadel_consul.cli.devstack import default_data_dir
    from citadel_consul.cli.operate import check_targets

    service, _, only = target.partition("@")
    snapshot = (await invocation.read_once()).snapshot()
    stack = snapshot.stack
    check_targets(snapshot, (target,))
    folders = [state_dir] if state_dir else [invocation.settings.state_dir, default_data_dir(stack) / "state"]
    nodes = [node for node in snapshot.specs[service].nodes if only in ("", node)]
    found = {
        node: path
        for node in nodes
        for folder in reversed(folders)
        if (path := log_path(folder, stack, node, service)).exists()
    }
    if not found:
        places = ", ".join(str(log_path(folder, stack, node, service)) for folder in folders for node in nodes)
        remedy = elsewhere(snapshot.specs[service].backend) or f"looked for {places}; see --state-dir"
        raise InvalidInput.at("", f"{target} has no output on this machine", remedy)
    return found


def elsewhere(backend: Backend) -> str:
    """Where the output of a service is that has another manager than the node agent; empty if it has none."""
    match backend:
        case SystemdBackend():
            return f"the journal of its node has it: journalctl {'--user ' * (backend.bus == 'user')}-u {backend.unit}"
        case DockerBackend():
            return f"Docker on its node has it: docker logs {backend.container or 'NAME'}"
        case _:
            return ""


def _print(output: str, node: str, line: str, *, labelled: bool) -> None:
    if output != "table":
        print_document({"node": node, "line": line}, output)
    else:
        click.echo(f"{node}: {line}" if labelled else line)
