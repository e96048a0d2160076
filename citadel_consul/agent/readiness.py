"""Readiness: the node agent runs a service's own checks until they pass for the first time.

Consul's first check of a new service comes up to one interval late; the agent is on the same machine and can ask at
once. It asks quickly at first and more rarely the longer it lasts, so that the delay it adds stays a small part of
the time that the service took.

Only http, tcp and script checks can be run from here. What remains (grpc, ttl) is told by Consul alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable

import httpx

from citadel_consul.core.model import Check, CheckKind, ServiceSpec

PROBED = frozenset({CheckKind.HTTP, CheckKind.TCP, CheckKind.SCRIPT})
"""The kinds of checks that the agent can run itself."""

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0
SHARE_OF_ELAPSED = 0.05
"""A pause is a twentieth of the time waited so far: readiness is noticed at most about 5 % late."""


def pause_after(elapsed_seconds: float) -> float:
    """How long to wait before the next probe, ``elapsed_seconds`` after the start."""
    return min(LONGEST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, elapsed_seconds * SHARE_OF_ELAPSED))


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
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting = [check for check in spec.checks if check.kind in PROBED]
        while waiting:
            waiting = [check for check, failure in await self._probe_all(waiting) if failure is not None]
            if waiting:
                await asyncio.sleep(pause_after(loop.time() - began))

    async def failure_of(self, check: Check) -> str | None:
        """None if ``check`` passes now, else what is wrong, by the rules of Consul's own checks."""
        probe = self._probes.get(check.kind)
        if probe is None:
            return None
        try:
            async with asyncio.timeout(check.timeout_seconds):
                return await probe(self, check)
        except TimeoutError:
            return f"no answer within {check.timeout_seconds:g} s"

    async def _probe_all(self, checks: Iterable[Check]) -> list[tuple[Check, str | None]]:
        found = list(checks)
        if len(found) == 1:
            return [(found[0], await self.failure_of(found[0]))]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.failure_of(check)) for check in found]
        return [(check, task.result()) for check, task in zip(found, tasks, strict=True)]

    async def _probe_http(self, check: Check) -> str | None:
        headers = [(name, value) for name, values in check.headers.items() for value in values]
        client = self._client(verify=not check.tls_skip_verify)
        try:
            response = await client.request(
                check.method, check.target, headers=headers, timeout=check.timeout_seconds, follow_redirects=True
            )
        except httpx.HTTPError as error:
            return str(error) or type(error).__name__
        return None if response.is_success else f"HTTP {response.status_code}"

    async def _probe_tcp(self, check: Check) -> str | None:
        host, _, port = check.target.rpartition(":")
        try:
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError as error:
            return error.strerror or str(error)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return None

    async def _probe_script(self, check: Check) -> str | None:
        try:
            process = await asyncio.create_subprocess_exec(
                *check.args, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return error.strerror or str(error)
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return None if status == 0 else f"exit status {status}"

    _probes: dict[CheckKind, Callable[[Prober, Check], Awaitable[str | None]]] = {  # noqa: RUF012
        CheckKind.HTTP: _probe_http,
        CheckKind.TCP: _probe_tcp,
        CheckKind.SCRIPT: _probe_script,
    }

    def _client(self, *, verify: bool) -> httpx.AsyncClient:
        """A client without pooled connections: a probe asks whether a new client would get through."""
        if verify not in self._clients:
            limits = httpx.Limits(max_keepalive_connections=0)
            self._clients[verify] = httpx.AsyncClient(verify=verify, trust_env=False, limits=limits)
        return self._clients[verify]
