"""plan: what an operation would do, without doing it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from citadel_consul.cli.completing import complete_service
from citadel_consul.cli.invocation import Invocation, command_options, run
from citadel_consul.cli.printing import print_answer, print_table
from citadel_consul.core.operation import ALL, Kind, Operation, Options, Step, StepAction

if TYPE_CHECKING:
    from citadel_consul.core.snapshot import Snapshot


@click.group(epilog="Example: citadel plan down redis --cascade")
def plan() -> None:
    """Show what `up` or `down` would do, and in which order."""


@plan.command(epilog="Example: citadel plan up api-gateway")
@click.argument("services", nargs=-1, metavar="[SERVICE[@NODE]]...", shell_complete=complete_service)
@command_options
def up(invocation: Invocation, services: tuple[str, ...]) -> None:
    """Show what starting services would start. Everything of one order starts side by side."""
    run(_plan(invocation, Kind.STARTUP, services or (ALL,), Options()))


@plan.command(epilog="Example: citadel plan down redis --cascade")
@click.argument("services", nargs=-1, metavar="[SERVICE[@NODE]]...", shell_complete=complete_service)
@click.option("--cascade", is_flag=True, help="With the running dependents.")
@command_options
def down(invocation: Invocation, services: tuple[str, ...], cascade: bool) -> None:
    """Show what stopping services would stop."""
    run(_plan(invocation, Kind.SHUTDOWN, services or (ALL,), Options(cascade=cascade)))


async def _plan(invocation: Invocation, kind: Kind, targets: tuple[str, ...], options: Options) -> None:
    from citadel_consul.cli.operate import refuse_early
    from citadel_consul.core.plan import plan as make_plan

    snapshot = (await invocation.read_once()).snapshot()
    refuse_early(snapshot, kind, targets, options)
    steps = make_plan(snapshot, Operation(id="", kind=kind, targets=targets, options=options)).steps
    rows = list(_rows(snapshot, steps))
    headings = ("ORDER", "SERVICE", "NODE", "STEP", "AFTER")
    if invocation.output != "table":
        names = [heading.lower() for heading in headings]
        print_answer({"steps": [dict(zip(names, row, strict=True)) for row in rows]}, invocation.output)
        return
    print_table(headings, rows)


def _rows(snapshot: Snapshot, steps: tuple[Step, ...]) -> Iterator[tuple[int, str, str, str, str]]:
    scope = {step.service for step in steps}
    stopping = bool(steps) and steps[0].action is StepAction.STOP
    ranks = snapshot.graph.heights(scope) if stopping else snapshot.graph.depths(scope)
    for step in sorted(steps, key=lambda s: ranks[s.service]):
        edges = snapshot.graph.dependents(step.service) if stopping else snapshot.graph.dependencies(step.service)
        others = sorted({e.service if stopping else e.dependency for e in edges} & scope)
        idle = snapshot.is_down(step.instance) if stopping else _runs(snapshot, step)
        what = f"{step.action} ({'not running' if stopping else 'runs already'})" if idle else str(step.action)
        yield ranks[step.service], step.service, step.node, what, ", ".join(others)


def _runs(snapshot: Snapshot, step: Step) -> bool:
    desired = snapshot.desired.get(step.instance)
    return desired is not None and desired.run and snapshot.is_alive(step.instance)
