"""status, services, health: how the stack is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from citadel_consul.cli.completing import complete_service
from citadel_consul.cli.invocation import Invocation, command_options, run
from citadel_consul.cli.printing import print_answer, print_table
from citadel_consul.core.model import ServiceSpec
from citadel_consul.errors import ConsulUnavailable, InvalidInput

if TYPE_CHECKING:
    from citadel_consul.cli.looking import Look
    from citadel_consul.cli.screen import Line

REFRESH_SECONDS = 1.0
LOOK_SECONDS = 3.0
"""How long one look may take while somebody watches: a screen that stands still without a word is a lie."""


@click.command(epilog="Example: citadel status --watch")
@click.option("-w", "--watch", is_flag=True, help="Show it anew every second, until Ctrl-C.")
@command_options
def status(invocation: Invocation, watch: bool) -> None:
    """Show the stack: what is wrong first, then what is under way, services, leader and standbys."""
    from citadel_consul.cli.statusscreen import status_lines

    run(_present(invocation, status_lines, _status_answer, watch=watch))


@click.command(epilog="Example: citadel services api-gateway")
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=complete_service)
@command_options
def services(invocation: Invocation, services: tuple[str, ...]) -> None:
    """List the services with endpoints, dependencies and order; of those that are named, each instance.

    Services of equal order do not wait for one another.
    """
    run(_services(invocation, services))


@click.command(epilog="Example: citadel health -o json | jq .health_summary.overall_status")
@click.option("-w", "--watch", is_flag=True, help="Show it anew every second, until Ctrl-C.")
@command_options
def health(invocation: Invocation, watch: bool) -> None:
    """Show the health of each service, and what the checks say that are not passing."""
    from citadel_consul.cli.healthscreen import health_lines

    run(_present(invocation, health_lines, _health_answer, watch=watch, measure=True))


async def _present(
    invocation: Invocation,
    lines: Callable[[Look], list[Line]],
    answer: Callable[[Look], object],
    *,
    watch: bool,
    measure: bool = False,
) -> None:
    from citadel_consul.cli.looking import look
    from citadel_consul.cli.screen import draw, terminal_width

    async with invocation.consul() as client:
        stack = await invocation.stack(client)
        if watch:
            await _watch(invocation, lambda: look(client, stack, invocation.defaults, measure=measure), lines, answer)
            return
        seen = await look(client, stack, invocation.defaults, measure=measure)
    if invocation.output != "table":
        print_answer(answer(seen), invocation.output)
        return
    for line in draw(lines(seen), terminal_width()):
        click.echo(line)


async def _watch(
    invocation: Invocation,
    take_look: Callable[[], Any],
    lines: Callable[[Look], list[Line]],
    answer: Callable[[Look], object],
) -> None:
    """Look again and again. Consul's absence is said and waited out: that is when somebody watches."""
    from citadel_consul.cli.screen import Line, Piece
    from citadel_consul.cli.watching import canvas_for

    last: list[Line] = []
    last_at = time.time()
    with canvas_for(invocation.output) as canvas:
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    seen: Look = await take_look()
            except (ConsulUnavailable, TimeoutError) as error:
                why = f" ({error})" if str(error) else ""
                warning = f"Consul does not answer; what stands below is {time.time() - last_at:.0f} s old{why}"
                canvas.show([Line((Piece("✘ ", fg="red"),), warning), *last], None)
            else:
                last, last_at = lines(seen), seen.at
                canvas.show(last, lambda seen=seen: answer(seen))  # type: ignore[misc]
            await asyncio.sleep(REFRESH_SECONDS)


def _status_answer(look: Look) -> object:
    """What the API answers, and besides what is wrong with which service, what is under way, and what is held."""
    from citadel_consul.cli.ailments import ailments
    from citadel_consul.cli.printing import plain
    from citadel_consul.cli.statusscreen import answer_of
    from citadel_consul.core.answers.operations import operation_answer

    return {
        **plain(answer_of(look)),
        "wrong_services": ailments(look.snapshot, look.outputs, look.at),
        "unfinished_operations": [operation_answer(op) for op in look.snapshot.operations if not op.ended],
        "holds": look.snapshot.holds,
    }


def _health_answer(look: Look) -> object:
    from citadel_consul.core.answers.health import health_answer

    return health_answer(look.snapshot, look.at, look.measured).document()


async def _services(invocation: Invocation, names: tuple[str, ...]) -> None:
    from citadel_consul.api.reading import locator
    from citadel_consul.core.answers.services import services_answer

    state = await invocation.read_once()
    snapshot = state.snapshot()
    check_services(snapshot.specs, names)
    answer = services_answer(snapshot, time.time(), locate=locator(state))
    chosen = [service for service in answer.services if not names or service.name in names]
    if invocation.output != "table":
        print_answer({"services": chosen}, invocation.output)
        return
    print_table(
        ("SERVICE", "STATUS", "TYPE", "CRITICAL", "UP", "DOWN", "ENDPOINT", "NEEDS"),
        [
            (
                s.name, s.status, s.type, "yes" if s.critical else "no", s.startup_order, s.shutdown_order,
                s.endpoint or "-", ", ".join(s.dependencies) or "-",
            )
            for s in chosen
        ],
    )  # fmt: skip
    if names:
        click.echo()
        print_table(
            ("INSTANCE", "STATUS", "PHASE", "SINCE", "PID", "STARTS", ""),
            [
                (f"{s.name}@{i.node}", i.status, i.phase or "-", i.since, i.pid, i.starts, i.detail)
                for s in chosen
                for i in s.instances
            ],
        )


def check_services(specs: dict[str, ServiceSpec] | Any, names: tuple[str, ...]) -> None:
    """Raise InvalidInput for names that are no service of the stack; ``service@node`` is not a name."""
    from citadel_consul.config.suggestions import suggest
    from citadel_consul.errors import Problem

    unknown = [name for name in names if name not in specs]
    problems = [Problem("", f"unknown service {name!r}", suggest(name, specs, "known are")) for name in unknown]
    if problems:
        raise InvalidInput(problems)
