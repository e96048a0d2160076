"""Whether names of Consul's DNS are answered: by the Consul agent itself, and by this machine's resolver."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
from typing import Final

from citadel_consul.consul.dns import dns_settings, look_up
from citadel_consul.core.finding import Finding, Report, Severity
from citadel_consul.doctor.site import Site
from citadel_consul.errors import ConsulRefused, ConsulUnavailable

ANSWER_SECONDS: Final = 5.0
_RECIPES: Final = "docs/dns.md has recipes for dnsmasq and systemd-resolved"


async def examine_dns(site: Site) -> Report:
    """Ask both for ``consul.service.consul``: the service that every cluster has."""
    if site.agent is None:
        return Report("dns", unknown="the token may not read the Consul agent, which says where its DNS is")
    settings = dns_settings(site.agent)
    name = settings.name_of("consul")
    if settings.port is None:
        return Report("dns", f"the Consul agent of {site.agent.node} has its DNS switched off")
    host = "127.0.0.1" if site.client.address.scheme == "unix" else site.client.address.host
    findings = []
    expected: tuple[str, ...] = ()
    try:
        expected = (await look_up(host, settings.port, name)).addresses
    except (ConsulUnavailable, ConsulRefused) as error:
        remedy = "see ports.dns, client_addr and addresses.dns of its configuration, and the firewall"
        findings.append(Finding("dns-silent", Severity.WARNING, f"{host}:{settings.port}", str(error), remedy))
    forwarded = await _forwarding(name, expected)
    if forwarded is None:
        return Report("dns", unknown="getent is not installed here, by which the system's resolver is asked")
    summary = f"Consul's DNS is at {host}:{settings.port}; the system's resolver was asked for {name}"
    return Report("dns", summary, (*findings, *forwarded))


async def _forwarding(name: str, expected: tuple[str, ...]) -> tuple[Finding, ...] | None:
    """What is wrong with the way from programs to Consul's DNS; None where it cannot be tried."""
    if shutil.which("getent") is None:
        return None
    found = await _system_answer(name)
    if not found:
        message = f"does not answer for {name}: programs on this machine do not find services by name"
        return (Finding("dns-not-forwarded", Severity.WARNING, "system resolver", message, _RECIPES),)
    if expected and not found & {ipaddress.ip_address(address) for address in expected if _is_address(address)}:
        said, should = ", ".join(sorted(map(str, found))), ", ".join(expected)
        message = f"answers {said} for {name}, and this Consul {should}: it asks another Consul"
        return (Finding("dns-of-another", Severity.WARNING, "system resolver", message, _RECIPES),)
    return ()


async def _system_answer(name: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses that the C library finds, as any program would. In a process of its own, because it can hang."""
    process = await asyncio.create_subprocess_exec(
        "getent", "ahosts", name, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        return set()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    words = [line.split()[0] for line in output.decode(errors="replace").splitlines() if line.strip()]
    return {ipaddress.ip_address(word.partition("%")[0]) for word in words if _is_address(word.partition("%")[0])}


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
