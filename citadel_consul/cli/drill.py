"""drill: the full cycle, run for real against the running stack."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from citadel_consul.cli.completing import complete_service
from citadel_consul.cli.invocation import Invocation, command_options, run
from citadel_consul.cli.printing import is_terminal, print_answer
from citadel_consul.errors import InvalidInput, Refused

if TYPE_CHECKING:
    from citadel_consul.cli.drilling.conduct import Wish
    from citadel_consul.cli.drilling.data import DataHook
    from citadel_consul.cli.drilling.verdict import Phase, Report
    from citadel_consul.store.devmark import DevMark

FAILED = 1


@click.command(epilog="Example: citadel drill --phase 4 --victim redis")
@click.option(
    "--phase", "phases", multiple=True, type=click.IntRange(1, 5), help="Only this phase; can be given several times."
)
@click.option("--victim", shell_complete=complete_service, help="The service to kill; default: a critical database.")
@click.option("--target", metavar="DURATION", help="How long a startup may take; default: operations.startup_timeout.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="How to put data in and find it again; default: drill.yaml beside the stack file of citadel dev.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask, also if it is not a stack of citadel dev.")
@command_options
def drill(
    invocation: Invocation,
    phases: tuple[int, ...],
    victim: str | None,
    target: str | None,
    data: Path | None,
    yes: bool,
) -> None:
    """Test the full cycle on the running stack: discovery, startup, health, recovery, shutdown.

    It stops and starts all services and kills one of them with SIGKILL. The stack is left as it was found. On anything
    but a stack of citadel dev it asks first. Exit status: 0 every line passed, 1 one of them failed.
    """
    status = run(_drill(invocation, tuple(sorted(set(phases))) or (1, 2, 3, 4, 5), victim, target, data, yes=yes))
    sys.exit(status)


async def _drill(
    invocation: Invocation,
    phases: tuple[int, ...],
    victim: str | None,
    target: str | None,
    data: Path | None,
    *,
    yes: bool,
) -> int:
    from citadel_consul.cli.drilling.conduct import Drill
    from citadel_consul.cli.drilling.site import Site, check_ready
    from citadel_consul.store.devmark import read_dev_mark

    async with invocation.consul() as client:
        stack = await invocation.stack(client)
        site = Site(client, stack, invocation.defaults, _narrator(invocation.output))
        await check_ready(site)
        dev = await read_dev_mark(client, site.keys)
        if dev is None and not yes:
            _ask(stack, phases, invocation.output)
        wish = _wish(invocation, phases, victim, target, data, dev)
        _check_victim((await site.snapshot()).specs, victim)
        show = _shower(invocation.output)
        try:
            report = await Drill(site, wish, show).run()
        except asyncio.CancelledError:
            click.echo(
                "\nthe drill was broken off, and the stack is as it stands: citadel status; citadel up", err=True
            )
            raise
    _print_end(report, invocation.output)
    return FAILED if report.failed else 0


def _wish(
    invocation: Invocation,
    phases: tuple[int, ...],
    victim: str | None,
    target: str | None,
    data: Path | None,
    dev: DevMark | None,
) -> Wish:
    from citadel_consul.cli.drilling.conduct import Wish

    hook, why_no_data = _hook(data, dev) if 5 in phases else (None, "")
    return Wish(
        phases=phases,
        target_seconds=invocation.settings.startup_timeout_seconds if target is None else _duration(target),
        victim=victim,
        hook=hook,
        why_no_data=why_no_data,
    )


def _hook(data: Path | None, dev: DevMark | None) -> tuple[DataHook | None, str]:
    """How data is put in, or why it is not. Raises InvalidInput for a file that cannot be used."""
    from citadel_consul.cli.drilling.data import FILE, DataHook

    if data is not None:
        return DataHook(data), ""
    if dev is None:
        return None, f"no {FILE}: --data FILE says how to put data in"
    beside = Path(dev.file).with_name(FILE)
    return (DataHook(beside), "") if beside.exists() else (None, f"there is no {beside}")


def _check_victim(specs: Iterable[str], victim: str | None) -> None:
    from citadel_consul.config.suggestions import suggest

    known = list(specs)
    if victim is not None and victim not in known:
        raise InvalidInput.at("--victim", f"unknown service {victim!r}", suggest(victim, known, "known are"))


def _duration(text: str) -> float:
    from citadel_consul.config.durations import parse_duration

    try:
        return parse_duration(text)
    except InvalidInput as error:
        (problem,) = error.problems
        raise InvalidInput.at("--target", problem.message, problem.remedy) from None


def _ask(stack: str, phases: tuple[int, ...], output: str) -> None:
    """Ask whether to go on. Raises Refused if the answer is no, or nobody is there to answer."""
    doing = []
    if {2, 5} & set(phases):
        doing.append("STOPS and starts all its services")
    if 3 in phases:
        doing.append("lets one look degraded for a moment")
    if 4 in phases:
        doing.append("KILLS one of them (SIGKILL)")
    what = ", ".join(doing) or "asks its health endpoints"
    if output != "table" or not sys.stdin.isatty():
        raise Refused(f"stack {stack!r} is not one of citadel dev, and the drill {what}: --yes says that it may")
    if not click.confirm(f"Stack {stack!r} is not one of citadel dev. The drill {what}. Go on?"):
        raise Refused("the drill was not begun")


# --- showing ------------------------------------------------------------------------------------------------------


def _narrator(output: str) -> Callable[[str], None]:
    """Tells a person who waits what is being done; a pipe is told results only."""
    if output != "table" or not is_terminal():
        return lambda text: None  # noqa: ARG005
    return lambda text: click.echo(click.style(f"  … {text}", dim=True), err=True)


def _shower(output: str) -> Callable[[Phase], None]:
    from citadel_consul.cli.drilling.verdict import heading, phase_text

    if output != "table":
        return lambda phase: None  # noqa: ARG005
    for text in heading():
        click.echo(text)

    def show(phase: Phase) -> None:
        for text in phase_text(phase):
            click.echo(text)

    return show


def _print_end(report: Report, output: str) -> None:
    from citadel_consul.cli.drilling.verdict import answer, assessment_text

    if output != "table":
        print_answer({**answer(report), "seconds": round(time.time() - report.started_at, 3)}, output)
        return
    for text in assessment_text(report):
        click.echo(text)
