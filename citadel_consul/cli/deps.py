"""deps: the dependency graph, which lives as one key an edge in Consul's KV store."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

import click

from citadel_consul.cli.completing import complete_service
from citadel_consul.cli.inspect import check_services
from citadel_consul.cli.invocation import Invocation, command_options, run
from citadel_consul.cli.printing import print_answer, print_table
from citadel_consul.core.model import Condition, Edge, OnRecovery, Strength
from citadel_consul.errors import Conflict, InvalidInput, Refused

if TYPE_CHECKING:
    from citadel_consul.core.snapshot import Snapshot


def _one_of(words: type[StrEnum]) -> click.Choice[str]:
    """A choice among the words of an enumeration; given the enumeration itself, click would take its names."""
    return click.Choice([str(word) for word in words])


@click.group(invoke_without_command=True, epilog="Example: citadel deps --tree; citadel deps --dot | dot -Tsvg")
@click.option("--tree", "form", flag_value="tree", help="As a tree, dependents on top.")
@click.option("--dot", "form", flag_value="dot", help="For Graphviz.")
@click.option("--mermaid", "form", flag_value="mermaid", help="For Mermaid.")
@command_options
def deps(invocation: Invocation, form: str | None) -> None:
    """Show the dependency graph, or change it with `add` and `remove`.

    Edges are keys of their own (edges/SERVICE/DEPENDENCY): the Consul UI and `consul kv` can change them as well.
    """
    if click.get_current_context().invoked_subcommand is None:
        run(_show(invocation, form or "table"))


@deps.command(epilog="Example: citadel deps add batch-processor qdrant --condition started --strength soft")
@click.argument("service", shell_complete=complete_service)
@click.argument("dependency", shell_complete=complete_service)
@click.option("--condition", type=_one_of(Condition), default="healthy", show_default=True)
@click.option("--strength", type=_one_of(Strength), default="hard", show_default=True)
@click.option("--min-instances", type=click.IntRange(min=1), help="How many instances suffice; default: all.")
@click.option("--on-recovery", type=_one_of(OnRecovery), default="notify", show_default=True)
@command_options
def add(
    invocation: Invocation,
    service: str,
    dependency: str,
    condition: str,
    strength: str,
    min_instances: int | None,
    on_recovery: str,
) -> None:
    """Have SERVICE depend on DEPENDENCY, or change how it does."""
    edge = Edge(service, dependency, Condition(condition), Strength(strength), min_instances, OnRecovery(on_recovery))
    run(_add(invocation, edge))


@deps.command(epilog="Example: citadel deps remove batch-processor qdrant")
@click.argument("service", shell_complete=complete_service)
@click.argument("dependency", shell_complete=complete_service)
@command_options
def remove(invocation: Invocation, service: str, dependency: str) -> None:
    """Have SERVICE depend on DEPENDENCY no more."""
    run(_remove(invocation, service, dependency))


async def _show(invocation: Invocation, form: str) -> None:
    snapshot = (await invocation.read_once()).snapshot()
    edges = snapshot.graph.edges
    if invocation.output != "table":
        print_answer({"edges": edges, "problems": _problems(snapshot)}, invocation.output)
        return
    if form == "table":
        print_table(
            ("SERVICE", "NEEDS", "CONDITION", "STRENGTH", "INSTANCES", "ON RECOVERY"),
            [
                (e.service, e.dependency, e.condition, e.strength, e.min_instances or "all", e.on_recovery)
                for e in sorted(edges, key=lambda e: (e.service, e.dependency))
            ],
        )
    else:
        for line in {"tree": _tree, "dot": _dot, "mermaid": _mermaid}[form](snapshot):
            click.echo(line)
    for problem in _problems(snapshot):
        click.echo(click.style(f"not in force: {problem}", fg="yellow"), err=True)


def _problems(snapshot: Snapshot) -> list[str]:
    found = [f"edge {fault.service} → {fault.dependency} {fault.message}" for fault in snapshot.graph_faults]
    return found + [f"{fault.key} {fault.message}" for fault in snapshot.faults]


def _tree(snapshot: Snapshot) -> Iterator[str]:
    """From what nothing depends on down to what depends on nothing; what was shown above is not unfolded again."""
    graph = snapshot.graph
    shown: set[str] = set()

    def below(service: str, indent: str) -> Iterator[str]:
        edges = sorted(graph.dependencies(service), key=lambda e: e.dependency)
        for edge in edges:
            last = edge is edges[-1]
            mark = "" if edge.strength is Strength.HARD else f" ({edge.strength})"
            again = " …" if edge.dependency in shown and graph.dependencies(edge.dependency) else ""
            yield f"{indent}{'└─ ' if last else '├─ '}{edge.dependency}{mark}{again}"
            if edge.dependency not in shown:
                shown.add(edge.dependency)
                yield from below(edge.dependency, indent + ("   " if last else "│  "))

    for service in sorted(graph.services):
        if not graph.dependents(service):
            yield service
            shown.add(service)
            yield from below(service, "")


def _dot(snapshot: Snapshot) -> Iterator[str]:
    yield f'digraph "{snapshot.stack}" {{'
    yield "  rankdir=BT;"
    for service in snapshot.graph.services:
        critical = snapshot.specs[service].critical
        yield f'  "{service}" [shape=box{", style=bold" if critical else ""}];'
    for edge in snapshot.graph.edges:
        style = {Strength.HARD: "solid", Strength.MILESTONE: "dashed", Strength.SOFT: "dotted"}[edge.strength]
        yield f'  "{edge.service}" -> "{edge.dependency}" [style={style}, label="{edge.condition}"];'
    yield "}"


def _mermaid(snapshot: Snapshot) -> Iterator[str]:
    yield "graph BT"
    for service in snapshot.graph.services:
        yield f"  {service}[{service}]"
    for edge in snapshot.graph.edges:
        arrow = {Strength.HARD: "-->", Strength.MILESTONE: "-.->", Strength.SOFT: "-..->"}[edge.strength]
        yield f"  {edge.service} {arrow}|{edge.condition}| {edge.dependency}"


async def _add(invocation: Invocation, edge: Edge) -> None:
    from citadel_consul.core.graph import build_graph
    from citadel_consul.store.applying import edge_operation

    async with invocation.consul() as client:
        state = await invocation.read(client)
        snapshot = state.snapshot()
        _check_services(snapshot, edge)
        others = [e for e in snapshot.graph.edges if (e.service, e.dependency) != (edge.service, edge.dependency)]
        _, faults = build_graph(snapshot.graph.services, [*others, edge])
        if faults:
            raise Refused(f"edge {edge.service} → {edge.dependency} {faults[0].message}")
        index = state.edges.index_of(state.keys.edge(edge.service, edge.dependency))
        await client.transact([edge_operation(state.keys, edge, index)])
    if invocation.output != "table":
        print_answer({"edge": edge}, invocation.output)
        return
    click.echo(f"{edge.service} needs {edge.dependency} to be {edge.condition} ({edge.strength})")


def _check_services(snapshot: Snapshot, edge: Edge) -> None:
    check_services(snapshot.specs, (edge.service, edge.dependency))
    if edge.service == edge.dependency:
        raise InvalidInput.at("", f"{edge.service} cannot depend on itself")
    instances = snapshot.instances(edge.dependency)
    if edge.min_instances is not None and edge.min_instances > len(instances):
        count = f"{len(instances)} instance" + ("s" if len(instances) != 1 else "")
        raise InvalidInput.at("--min-instances", f"{edge.dependency} has {count}")
    if edge.condition is Condition.COMPLETED and not snapshot.specs[edge.dependency].oneshot:
        raise InvalidInput.at("--condition", f"{edge.dependency} is not a oneshot: it never completes")


async def _remove(invocation: Invocation, service: str, dependency: str) -> None:
    async with invocation.consul() as client:
        keys = await invocation.keys(client)
        key = keys.edge(service, dependency)
        # Names that cannot be a part of a key have no edge; others may, also if `citadel deps add` would not take them.
        entry = await client.kv_get(key) if _is_part(service) and _is_part(dependency) else None
        if entry is None:
            raise InvalidInput.at("", f"there is no edge {service} → {dependency}", "citadel deps shows them all")
        if not await client.kv_delete(key, cas=entry.modify_index):
            raise Conflict(f"edge {service} → {dependency} was changed by somebody else; look again")
    if invocation.output != "table":
        print_answer({"removed": {"service": service, "dependency": dependency}}, invocation.output)
        return
    click.echo(f"{service} no longer needs {dependency}")


def _is_part(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name
