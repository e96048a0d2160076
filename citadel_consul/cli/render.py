"""render: the Consul service definitions of a stack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from citadel_consul.cli.completing import complete_service
from citadel_consul.cli.inspect import check_services
from citadel_consul.cli.invocation import Invocation, command_options, run
from citadel_consul.cli.printing import print_answer
from citadel_consul.errors import InvalidInput

if TYPE_CHECKING:
    from citadel_consul.core.model import Stack


@click.command(epilog="Example: citadel render --file stack.yaml --out rendered/")
@click.argument("service", required=False, shell_complete=complete_service)
@click.option("--file", type=click.Path(path_type=Path), help="Render a stack file instead of what is in Consul.")
@click.option("--node", "only_node", help="Only the instances of this node.")
@click.option("--node-address", default="127.0.0.1", show_default=True, help="Address for {{ node.address }}.")
@click.option("--out", type=click.Path(path_type=Path), help="Write one file for each instance into this folder.")
@click.option("--acl", is_flag=True, help="Render the stack's least-privilege ACL policies instead.")
@command_options
def render(
    invocation: Invocation,
    service: str | None,
    file: Path | None,
    only_node: str | None,
    node_address: str,
    out: Path | None,
    acl: bool,
) -> None:
    """Print the service definitions that the node agents register, as JSON.

    A plain Consul agent accepts the files that --out writes.
    """
    stack = _from_file(file, invocation) if file is not None else run(_from_consul(invocation))
    if acl:
        _render_policies(stack, out)
    else:
        _render_definitions(invocation, _only(stack, service), only_node, node_address, out)


def _render_definitions(
    invocation: Invocation, stack: Stack, only_node: str | None, node_address: str, out: Path | None
) -> None:
    from citadel_consul.rendering.definition import render_definition
    from citadel_consul.rendering.files import render_files
    from citadel_consul.rendering.scope import NodeContext

    nodes = dict.fromkeys(node for spec in stack.services.values() for node in spec.nodes)
    if only_node is not None and only_node not in nodes:
        raise InvalidInput.at("--node", f"no service runs on node {only_node!r}", f"known are {', '.join(nodes)}")
    contexts = [NodeContext(n, node_address, stack.name) for n in nodes if only_node in (None, n)]
    directory = invocation.settings.template_dir
    directories = (directory,) if directory is not None else ()
    if out is not None:
        for path in render_files(stack, out, contexts, directories):
            click.echo(str(path))
        return
    definitions = [
        render_definition(spec, context, directories)
        for context in contexts
        for spec in stack.services.values()
        if context.name in spec.nodes
    ]
    print_answer(definitions[0] if len(definitions) == 1 else definitions, "yaml" if _yaml(invocation) else "json")


def _render_policies(stack: Stack, out: Path | None) -> None:
    from citadel_consul.rendering.files import write_files
    from citadel_consul.rendering.policy import policies_of

    policies = policies_of(stack)
    if out is not None:
        for path in write_files({out / f"{name}.hcl": text for name, text in policies.items()}):
            click.echo(str(path))
        return
    for name, text in policies.items():
        click.echo(f"# --- {name}\n{text}")


def _yaml(invocation: Invocation) -> bool:
    return invocation.output == "yaml"


def _only(stack: Stack, service: str | None) -> Stack:
    from dataclasses import replace

    if service is None:
        return stack
    check_services(stack.services, (service,))
    return replace(stack, services={service: stack.services[service]}, edges=())


def _from_file(file: Path, invocation: Invocation) -> Stack:
    from citadel_consul.cli.stackfile import load

    return load(file, invocation)


async def _from_consul(invocation: Invocation) -> Stack:
    from citadel_consul.core.model import Stack

    snapshot = (await invocation.read_once()).snapshot()
    name = snapshot.stack
    if not snapshot.specs:
        raise InvalidInput.at("", f"stack {name!r} has no services in Consul", "citadel apply FILE, or --file FILE")
    return Stack(name, dict(snapshot.specs), snapshot.graph.edges)
