"""Asking DNS as a client does: Consul's own, or a forwarder in front of it.

The names are those of the catalog (``<service>.service.consul``). Only what is answered is told here; where it differs
from the catalog is for others to say.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Final

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from dns.rrset import RRset

from citadel_consul.consul.agent import AgentSelf
from citadel_consul.errors import ConsulRefused, ConsulUnavailable, InvalidInput

PORT: Final = 8600
DOMAIN: Final = "consul"
ANSWER_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """What an agent says of its DNS. ``port`` is None where it has none, ``only_passing`` if it is not known."""

    port: int | None = PORT
    domain: str = DOMAIN
    only_passing: bool | None = None

    def name_of(self, service: str, tag: str | None = None, datacenter: str | None = None) -> str:
        """The name under which a service is found."""
        labels = [*([tag] if tag else []), service, "service", *([datacenter] if datacenter else []), self.domain]
        return ".".join(labels)


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """An SRV record. ``address`` is the target's as the answer gives it, or the target's name if it does not."""

    address: str
    port: int
    weight: int


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """What DNS says of one name. ``ttl_seconds`` is the shortest of its records' (None without any)."""

    addresses: tuple[str, ...] = ()
    services: tuple[ServiceRecord, ...] = ()
    ttl_seconds: int | None = None


def dns_settings(agent: AgentSelf) -> DnsSettings:
    """The DNS of an agent, by its running configuration. That has no contract: what it lacks is as by default."""
    port, domain = agent.config.get("DNSPort"), agent.config.get("DNSDomain")
    passing = agent.config.get("DNSOnlyPassing")
    return DnsSettings(
        port=(port if port > 0 else None) if isinstance(port, int) else PORT,
        domain=domain.rstrip(".") if isinstance(domain, str) and domain.strip(".") else DOMAIN,
        only_passing=passing if isinstance(passing, bool) else None,
    )


async def look_up(host: str, port: int, name: str, *, by_tcp: bool = False) -> DnsAnswer:
    """Ask the server at ``host`` and ``port`` for the addresses (A, AAAA) and the SRV records of ``name``.

    An answer by UDP may leave records out without a word (``udp_answer_limit``, and what fits into a packet unless
    ``enable_truncate`` is set); one ``by_tcp`` is whole. A name that does not exist is an empty answer. Raises
    ConsulUnavailable if nobody answers, ConsulRefused if the server says no, InvalidInput for what cannot be a name.
    """
    server = await _address_of(host, port)
    kinds = (dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.SRV)
    answers = [await _ask(server, port, _query(name, kind), name, by_tcp=by_tcp) for kind in kinds]
    *by_address, by_service = answers
    records = [record for rrset in by_service.answer if rrset.rdtype == dns.rdatatype.SRV for record in rrset]
    hosts = {rrset.name: text for rrset in by_service.additional for text in _addresses_in(rrset)}
    for target in {record.target for record in records} - hosts.keys():
        # A forwarder that answers from its cache leaves the addresses out.
        hosts[target] = await _host(server, port, _plain(target), by_tcp=by_tcp)
    addresses = [text for answer in by_address for rrset in answer.answer for text in _addresses_in(rrset)]
    services = [ServiceRecord(hosts[record.target], record.port, record.weight) for record in records]
    return DnsAnswer(
        addresses=tuple(sorted(dict.fromkeys(addresses))),
        services=tuple(sorted(services, key=lambda s: (s.address, s.port))),
        ttl_seconds=min((rrset.ttl for answer in answers for rrset in answer.answer), default=None),
    )


async def _host(server: str, port: int, name: str, *, by_tcp: bool) -> str:
    """The address of a target; the name itself where the server does not know it (a name of somebody else's)."""
    for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
        try:
            answer = await _ask(server, port, _query(name, kind), name, by_tcp=by_tcp)
        except (ConsulUnavailable, ConsulRefused):
            return name
        for rrset in answer.answer:
            if rrset.rdtype == kind:
                return _addresses_in(rrset)[0]
    return name


def _query(name: str, kind: dns.rdatatype.RdataType) -> dns.message.Message:
    try:
        return dns.message.make_query(dns.name.from_text(name), kind, use_edns=0)
    except dns.exception.DNSException as error:
        raise InvalidInput.at("name", f"{name!r} is no name in DNS: {error}") from error


async def _ask(server: str, port: int, query: dns.message.Message, name: str, *, by_tcp: bool) -> dns.message.Message:
    try:
        if by_tcp:
            answer = await dns.asyncquery.tcp(query, server, ANSWER_SECONDS, port)
        else:
            answer, _ = await dns.asyncquery.udp_with_fallback(query, server, ANSWER_SECONDS, port)
    except dns.exception.Timeout as error:
        raise ConsulUnavailable(f"DNS at {server}:{port} does not answer for {name}") from error
    except (OSError, EOFError, dns.exception.DNSException) as error:
        reason = str(error) or type(error).__name__
        raise ConsulUnavailable(f"DNS at {server}:{port} cannot be asked for {name}: {reason}") from error
    code = answer.rcode()
    if code in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return answer
    message = f"DNS at {server}:{port} answers {dns.rcode.to_text(code)} for {name}"
    raise ConsulUnavailable(message) if code == dns.rcode.SERVFAIL else ConsulRefused(message)


def _addresses_in(rrset: RRset) -> list[str]:
    """The addresses of a record set, or the names that it refers to (a service whose address is a host name)."""
    if rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
        return [record.address for record in rrset]
    return [_plain(record.target) for record in rrset] if rrset.rdtype == dns.rdatatype.CNAME else []


def _plain(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True)


async def _address_of(host: str, port: int) -> str:
    """The address of a server that may be given by name."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise ConsulUnavailable(f"the address of {host} is not known: {error}") from error
    return str(found[0][4][0])
