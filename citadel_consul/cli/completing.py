"""What the shell offers to complete: services and operations as Consul has them.

Somebody waits at a prompt, so there is no answer rather than a late one, and never an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from citadel_consul.errors import CitadelError

if TYPE_CHECKING:
    from citadel_consul.cli.invocation import Invocation
    from citadel_consul.consul.client import ConsulClient

PATIENCE_SECONDS = 1.0


def complete_service(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The services of the stack. Not their nodes: bash takes the ``@`` before them for the end of a word."""
    del parameter
    return [name for name in _ask(context, _services) if name.startswith(incomplete)]


def complete_operation(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The operations that are remembered, newest first."""
    del parameter
    return [name for name in _ask(context, _operations) if name.startswith(incomplete)]


def _ask(context: click.Context, question: Callable[[Invocation, ConsulClient], Awaitable[list[str]]]) -> list[str]:
    from citadel_consul.cli.invocation import SHARED_FLAGS, Invocation
    from citadel_consul.config.settings import load_settings

    async def ask(invocation: Invocation) -> list[str]:
        async with asyncio.timeout(PATIENCE_SECONDS), invocation.consul() as client:
            return await question(invocation, client)

    try:
        flags = {name: context.params.get(name) for name in SHARED_FLAGS}
        settings = load_settings(flags, None, context.params.get("config_path"))
        return asyncio.run(ask(Invocation(settings, "table")))
    except (CitadelError, TimeoutError):
        return []


async def _services(invocation: Invocation, client: ConsulClient) -> list[str]:
    prefix = (await invocation.keys(client)).specs
    return [key.removeprefix(prefix) for key in await client.kv_keys(prefix)]


async def _operations(invocation: Invocation, client: ConsulClient) -> list[str]:
    prefix = (await invocation.keys(client)).operations
    ids = (key.removeprefix(prefix) for key in await client.kv_keys(prefix))
    return sorted((name for name in ids if "/" not in name), reverse=True)
