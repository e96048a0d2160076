"""resolve: where a service is, by the HTTP API and by DNS."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from citadel_consul.cli.completing import complete_service
from citadel_consul.cli.failures import FAILED
from citadel_consul.cli.invocation import Invocation, command_options, run
from citadel_consul.cli.printing import colours_wanted, print_answer, print_table

if TYPE_CHECKING:
    from citadel_consul.core.resolution import CatalogInstance, Resolution

_YES, _NO, _UNASKED = "yes", "-", ""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")


@click.command(epilog="Example: citadel resolve redis --passing -o json")
@click.argument("service", shell_complete=complete_service)
@click.option("--tag", help="Only instances with this tag.")
@click.option("--passing", is_flag=True, help="Show only instances that pass.")
@click.option("--dns/--no-dns", default=True, show_default=True, help="Ask DNS as well.")
@click.option("--dns-server", metavar="HOST:PORT", help="Ask this server; default: the DNS of the Consul agent.")
@command_options
def resolve(
    invocation: Invocation, service: str, tag: str | None, passing: bool, dns: bool, dns_server: str | None
) -> None:
    """Show where a service is: what Consul's HTTP API says and what DNS answers, side by side.

    Where the two differ, it says so. The exit status is 1 if no instance passes.
    """
    found, near = run(_resolve(invocation, service, tag, dns=dns, dns_server=dns_server))
    shown = tuple(one for one in found.instances if one.status == "passing" or not passing)
    if invocation.output == "table":
        _show(found, shown)
    else:
        print_answer(replace(found, instances=shown), invocation.output)
    label = click.style("warning", fg="yellow") if colours_wanted() else "warning"
    for difference in found.differences:
        click.echo(f"{label}: {difference}", err=True)
    if not found.passing:
        click.echo(_nothing(found, near), err=True)
        raise click.exceptions.Exit(FAILED)


async def _resolve(
    invocation: Invocation, service: str, tag: str | None, *, dns: bool, dns_server: str | None
) -> tuple[Resolution, str]:
    """What was found; and, if nothing was, the name that may have been meant."""
    from citadel_consul.cli.resolving import resolve_service, server_of
    from citadel_consul.config.suggestions import suggest
    from citadel_consul.errors import InvalidInput

    if not _NAME.fullmatch(service):  # a slash would be part of a path, a dot of another name in DNS
        raise InvalidInput.at("SERVICE", f"{service!r} is not the name of a service", "letters, digits, '-' and '_'")
    given = _server(dns_server) if dns_server is not None else None
    async with invocation.consul() as client:
        server = await server_of(client, given) if dns else None
        found = await resolve_service(client, service, tag, server)
        known = () if found.instances else (await client.catalog_services()).value
    return found, suggest(service, known, "services are") if known and service not in known else ""


def _server(text: str) -> tuple[str, int]:
    """Host and port of a DNS server. Raises InvalidInput."""
    from citadel_consul.config.addresses import parse_host_port
    from citadel_consul.errors import InvalidInput, Problem

    try:
        return parse_host_port(text)
    except InvalidInput as error:
        raise InvalidInput(Problem("--dns-server", p.message, p.remedy) for p in error.problems) from error


def _show(found: Resolution, shown: tuple[CatalogInstance, ...]) -> None:
    """One row for each instance that is to be shown; then what only DNS has."""
    dns = found.dns if found.dns is not None and not found.dns.failure else None
    targets = {(s.address, s.port) for s in dns.services} if dns is not None else set()
    rows = []
    for one in shown:
        a = _mark(dns is not None, dns is not None and one.address in dns.addresses)
        srv = _mark(dns is not None, (one.address, one.port) in targets)
        rows.append((one.id, one.node, f"{one.address}:{one.port}", one.status, a, srv, " ".join(one.tags)))
    places = {(one.address, one.port) for one in found.instances}
    if dns is not None:
        rows += [("", "", f"{a}:{p}", "only in DNS", _NO, _YES, "") for a, p in sorted(targets - places)]
    if rows:
        print_table(("INSTANCE", "NODE", "ADDRESS", "STATUS", "A", "SRV", "TAGS"), rows)
    if dns is not None:
        ttl = "" if dns.ttl_seconds is None else f", TTL {dns.ttl_seconds} s"
        records = f"{_count(len(dns.addresses), 'address', 'es')}, {_count(len(dns.services), 'SRV record', 's')}"
        click.echo(f"DNS at {dns.server}, {dns.name}: {records}{ttl}")


def _count(number: int, word: str, ending: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}{ending}"


def _mark(asked: bool, there: bool) -> str:
    if not asked:
        return _UNASKED
    return _YES if there else _NO


def _nothing(found: Resolution, near: str) -> str:
    which = f"{found.service} with the tag {found.tag}" if found.tag else found.service
    if found.instances:
        return f"no instance of {which} passes"
    return f"Consul knows no instance of {which}" + (f" ({near})" if near else "")
