"""doctor: what is wrong with an installation, and what to do about it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from citadel_consul.cli.failures import FAILED, UNREACHABLE
from citadel_consul.cli.invocation import Invocation, command_options, run
from citadel_consul.cli.printing import print_answer
from citadel_consul.errors import ConsulUnavailable, InvalidInput

if TYPE_CHECKING:
    from citadel_consul.core.finding import Report
    from citadel_consul.doctor.site import Site

AREAS = ("consul", "token", "clock", "stack", "registrations", "checks", "units", "dns")


@click.command(epilog="Example: citadel doctor --skip dns")
@click.option("--skip", type=click.Choice(AREAS), multiple=True, help="Leave an area out; can be given several times.")
@click.option("--quick", is_flag=True, help="Do not wait to see whether the outputs of checks change.")
@click.option("--strict", is_flag=True, help="Let warnings count for the exit status, too.")
@click.option("--file", type=click.Path(path_type=Path), help="Judge the checks of a stack file; no Consul is asked.")
@click.option("--fix", is_flag=True, help="Offer to take out each ghost, through the Consul agent that has it.")
@click.option("-y", "--yes", is_flag=True, help="With --fix: do not ask.")
@command_options
def doctor(
    invocation: Invocation, skip: tuple[str, ...], quick: bool, strict: bool, file: Path | None, fix: bool, yes: bool
) -> None:
    """Examine Consul, the token, the clocks, the stack, what is registered on this node, the checks, units, and DNS.

    The exit status is 1 if there are errors. Nothing is changed without --fix.
    """
    if fix and not yes and (invocation.output != "table" or not sys.stdin.isatty()):
        raise InvalidInput.at("--fix", "nobody can be asked here", "give --yes as well")
    if file is not None:
        _end(invocation, _judge(invocation, file), strict=strict)
        return
    try:
        reports = run(_examine(invocation, skip, watch=not quick, fix=fix, yes=yes))
    except ConsulUnavailable as error:
        _print(invocation, (_unreachable(error),))
        raise click.exceptions.Exit(UNREACHABLE) from error
    _end(invocation, reports, strict=strict)


async def _examine(
    invocation: Invocation, skip: tuple[str, ...], *, watch: bool, fix: bool, yes: bool
) -> tuple[Report, ...]:
    from citadel_consul.doctor.control import examine_consul
    from citadel_consul.doctor.examine import examine
    from citadel_consul.doctor.identity import agent_of
    from citadel_consul.doctor.site import Site

    async with invocation.consul() as client:
        agent = await agent_of(client)
        site = Site(client, invocation.settings, "", invocation.defaults, agent)
        if await client.status_leader() is None:
            return (await examine_consul(site),)  # nothing else is answered then
        site = replace(site, stack=await invocation.stack(client))
        reports = await examine(site, skip, watch=watch)
        if fix:
            reports = await _fix(site, reports, yes=yes)
    return reports


async def _fix(site: Site, reports: tuple[Report, ...], *, yes: bool) -> tuple[Report, ...]:
    """Offer to take out each ghost; returns the reports without those that are gone."""
    from citadel_consul.doctor import registrations

    gone = set()
    ghosts = [finding for report in reports for finding in report.findings if finding.code == registrations.CODE]
    for ghost in ghosts:
        if yes or click.confirm(f"{ghost.place}: {ghost.message}. Take it out of Consul?", err=True):
            await registrations.remove(site.client, ghost)
            click.echo(f"taken out: {ghost.place}", err=True)
            gone.add(ghost)
    return tuple(replace(r, findings=tuple(f for f in r.findings if f not in gone)) for r in reports)


def _judge(invocation: Invocation, file: Path) -> tuple[Report, ...]:
    """The report on a stack file."""
    from citadel_consul.cli.stackfile import load
    from citadel_consul.doctor.checks import lint_specs

    stack = load(file, invocation)
    return (lint_specs(stack.services.values(), stack.name, invocation.settings),)


def _unreachable(error: ConsulUnavailable) -> Report:
    from citadel_consul.core.finding import Finding, Report, Severity

    remedy = "start it there, or say where it is: CONSUL_HTTP_ADDR, --consul-address"
    return Report(
        "consul", findings=(Finding("consul-unreachable", Severity.ERROR, "Consul agent", str(error), remedy),)
    )


def _end(invocation: Invocation, reports: tuple[Report, ...], *, strict: bool) -> None:
    """Print the reports, and end with their status."""
    _print(invocation, reports)
    counted = [f for report in reports for f in report.findings if strict or f.severity == "error"]
    if counted:
        raise click.exceptions.Exit(FAILED)


def _print(invocation: Invocation, reports: tuple[Report, ...]) -> None:
    if invocation.output != "table":
        print_answer(_document(reports), invocation.output)
        return
    from citadel_consul.cli.doctorscreen import report_lines
    from citadel_consul.cli.screen import draw, terminal_width

    for line in draw(report_lines(reports), terminal_width()):
        click.echo(line)


def _document(reports: tuple[Report, ...]) -> dict[str, Any]:
    findings = [finding for report in reports for finding in report.findings]
    errors = sum(finding.severity == "error" for finding in findings)
    return {"errors": errors, "warnings": len(findings) - errors, "reports": reports}
