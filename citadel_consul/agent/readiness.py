"""Readiness: the node agent runs a service's own checks until they pass for the first time.

Consul's first check of a new service comes up to one interval late; the agent is on the same machine and can ask at
once. It asks quickly at first and more rarely the longer it lasts, so that the delay it adds stays a small part of
the time that the service took.

How small depends on what a question costs. Nearly all of a start passes before the service listens, and whether it
does is a question for the kernel (0.1 ms, refused at once on loopback): it is asked often. Only when somebody listens
is there a request (2 ms, and work for the service), or for a script a process (10 ms and more).

Only http, tcp and script checks can be run from here. What remains (grpc, ttl) is told by Consul alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from citadel_consul.core.model import Check, CheckKind, ServiceSpec

PROBED = frozenset({CheckKind.HTTP, CheckKind.TCP, CheckKind.SCRIPT})
"""The kinds of checks that the agent can run itself."""

MAX_PORT = 65535
TOO_MANY_REQUESTS = 429
WARNING_STATUS = 1
"""What makes Consul call an http or a script check a warning; any other failure is critical."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has against a service. One that is not ``critical`` is a warning: HTTP 429, a script's status 1."""

    text: str
    critical: bool = True


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to ask: after ``first_seconds``, and later after a ``share`` of the time waited so far."""

    first_seconds: float
    share: float
    longest_seconds: float = 1.0

    def pause_after(self, elapsed_seconds: float) -> float:
        """How long to wait before the next probe, ``elapsed_seconds`` after the start."""
        return min(self.longest_seconds, max(self.first_seconds, elapsed_seconds * self.share))


CONNECTING = Pace(first_seconds=0.004, share=0.02)
"""Readiness is noticed 1 % late on average, or 2 ms; the 130 probes of the first second take 11 ms of CPU."""
ASKING = Pace(first_seconds=0.02, share=0.05)


class Prober:
    """Runs checks. One for each agent: it keeps the HTTP clients (with and without certificate checks)."""

    def __init__(self) -> None:
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def __aenter__(self) -> Prober:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def until_ready(self, spec: ServiceSpec) -> None:
        """Return as soon as every check that can be run from here passes; runs until cancelled otherwise."""
        probed = [check for check in spec.checks if check.kind in PROBED]
        if len(probed) == 1:
            await self._until_passing(probed[0])
            return
        async with asyncio.TaskGroup() as group:
            for check in probed:
                group.create_task(self._until_passing(check))

    async def failure_of(self, check: Check) -> str | None:
        """None if ``check`` passes now, else what is wrong, a warning included."""
        found = await self.finding_of(check)
        return found.text if found is not None else None

    async def finding_of(self, check: Check) -> Finding | None:
        """None if ``check`` passes now, else what it finds, by the rules of Consul's own checks."""
        probe = self._probes.get(check.kind)
        if probe is None:
            return None
        try:
            async with asyncio.timeout(check.timeout_seconds):
                return await probe(self, check)
        except TimeoutError:
            return Finding(f"no answer within {check.timeout_seconds:g} s")
        except (httpx.InvalidURL, ValueError, OverflowError) as error:  # a spec written by hand can hold anything
            return Finding(f"{check.target!r} cannot be asked: {error}")

    async def _until_passing(self, check: Check) -> None:
        began = asyncio.get_running_loop().time()
        pace = CONNECTING if check.kind is CheckKind.TCP else ASKING
        if check.kind is CheckKind.HTTP:
            await self._until(CONNECTING, began, lambda: self._knock(check))
        await self._until(pace, began, lambda: self.failure_of(check))

    async def _until(self, pace: Pace, began: float, probe: Callable[[], Awaitable[str | None]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if await probe() is None:
                return
            await asyncio.sleep(pace.pause_after(loop.time() - began))

    async def _knock(self, check: Check) -> str | None:
        """Whether anybody listens where an http check asks."""
        try:
            url = url_of(check)
            port = url.port or (443 if url.scheme == "https" else 80)
            async with asyncio.timeout(check.timeout_seconds):
                return await connect(url.host, port)
        except TimeoutError:
            return "no answer"
        except (httpx.InvalidURL, ValueError):
            return None  # the request itself says what is wrong with it

    async def _probe_http(self, check: Check) -> Finding | None:
        headers = [(name, value) for name, values in check.headers.items() for value in values]
        client = self.client(verify=not check.tls_skip_verify)
        try:
            response = await client.request(
                check.method, url_of(check), headers=headers, timeout=check.timeout_seconds, follow_redirects=True
            )
        except httpx.HTTPError as error:
            return Finding(str(error) or type(error).__name__)
        return finding_in(response)

    async def _probe_tcp(self, check: Check) -> Finding | None:
        host, _, port = check.target.rpartition(":")
        failure = await connect(host.strip("[]"), int(port))
        return Finding(failure) if failure is not None else None

    async def _probe_script(self, check: Check) -> Finding | None:
        try:
            process = await asyncio.create_subprocess_exec(
                *check.args, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Finding(_reason(error))
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return None if status == 0 else Finding(f"exit status {status}", critical=status != WARNING_STATUS)

    _probes: dict[CheckKind, Callable[[Prober, Check], Awaitable[Finding | None]]] = {  # noqa: RUF012
        CheckKind.HTTP: _probe_http,
        CheckKind.TCP: _probe_tcp,
        CheckKind.SCRIPT: _probe_script,
    }

    def client(self, *, verify: bool) -> httpx.AsyncClient:
        """A client without pooled connections: a probe asks whether a new client would get through."""
        if verify not in self._clients:
            limits = httpx.Limits(max_keepalive_connections=0)
            self._clients[verify] = httpx.AsyncClient(verify=verify, trust_env=False, limits=limits)
        return self._clients[verify]


def url_of(check: Check) -> httpx.URL:
    """Where an http check asks. Raises httpx.InvalidURL or ValueError for what is none."""
    url = httpx.URL(check.target)
    if url.port is not None and url.port > MAX_PORT:  # no socket takes it, and asyncio says so in a group of errors
        raise ValueError(f"{url.port} is no port")
    return url


def finding_in(response: httpx.Response) -> Finding | None:
    """What an http check has against an answer, by Consul's rules."""
    if response.is_success:
        return None
    return Finding(f"HTTP {response.status_code}", critical=response.status_code != TOO_MANY_REQUESTS)


async def connect(host: str, port: int) -> str | None:
    """None if somebody listens there, else what is wrong."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return await _connect_by_name(host, port)
    with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(probe, (host, port))
        except OSError as error:
            return _reason(error)
        return "nobody listens" if is_connected_to_itself(probe) else None


def is_connected_to_itself(probe: socket.socket) -> bool:
    """Whether a connection met itself, as TCP allows; if it did, it is made to leave no trace.

    Whoever connects to a port that nobody has, and gets that very port as its own, is its own peer (RFC 9293, 3.5).
    One try in 28,000 does on Linux, if the port is an ephemeral one. It would be taken for the service, and on closing
    keep the port from it for a minute.
    """
    if probe.getsockname() != probe.getpeername():
        return False
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return True


async def _connect_by_name(host: str, port: int) -> str | None:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return _reason(error)
    itself = is_connected_to_itself(writer.get_extra_info("socket"))
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return "nobody listens" if itself else None


def _reason(error: OSError) -> str:
    """The system's own words; asyncio puts the address in their place."""
    return os.strerror(error.errno) if error.errno else str(error)
