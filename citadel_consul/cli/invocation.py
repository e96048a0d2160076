"""What every command has: settings, a way to print, and a way to Consul."""

from __future__ import annotations

import asyncio
import functools
import getpass
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from citadel_consul.errors import Refused

if TYPE_CHECKING:
    from citadel_consul.config.settings import Settings
    from citadel_consul.consul.address import ConsulAddress
    from citadel_consul.consul.client import ConsulClient
    from citadel_consul.core.snapshot import Defaults
    from citadel_consul.store.keys import Keys
    from citadel_consul.store.state import StackState

P = ParamSpec("P")
R = TypeVar("R")

FORMATS = ("table", "json", "yaml")


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of the command line."""

    settings: Settings
    output: str

    @asynccontextmanager
    async def consul(self) -> AsyncIterator[ConsulClient]:
        """A client for Consul, as the settings say."""
        from citadel_consul.consul.client import ConsulClient

        async with ConsulClient(consul_address(self.settings)) as client:
            yield client

    async def stack(self, client: ConsulClient) -> str:
        """The stack that is meant: the setting, or the only one there is. Raises Refused if it cannot be told."""
        from citadel_consul.store.reading import list_stacks

        if self.settings.stack is not None:
            return self.settings.stack
        found = await list_stacks(client)
        if len(found) > 1:
            raise Refused(f"there are several stacks ({', '.join(found)}): say which with --stack or CITADEL_STACK")
        return found[0] if found else "default"

    async def keys(self, client: ConsulClient) -> Keys:
        """The keys of the stack that is meant."""
        from citadel_consul.store.keys import Keys

        return Keys(await self.stack(client))

    async def read(self, client: ConsulClient) -> StackState:
        """All of the stack that is meant. Raises ConsulUnavailable or ConsulRefused."""
        from citadel_consul.api.reading import read_stack

        return await read_stack(client, await self.stack(client), self.defaults)

    async def read_once(self) -> StackState:
        """As :meth:`read`, with a client for this one question."""
        async with self.consul() as client:
            return await self.read(client)

    @property
    def defaults(self) -> Defaults:
        """What holds where neither a spec nor a request says otherwise."""
        return defaults_of(self.settings)


def defaults_of(settings: Settings) -> Defaults:
    """The defaults of decisions, from the settings."""
    from citadel_consul.core.snapshot import Defaults

    return Defaults(
        start_timeout_seconds=settings.startup_timeout_seconds,
        stop_timeout_seconds=settings.shutdown_timeout_seconds,
        startup_timeout_seconds=settings.startup_timeout_seconds,
        shutdown_timeout_seconds=settings.shutdown_timeout_seconds,
        drain_timeout_seconds=settings.drain_timeout_seconds,
        recovery_enabled=settings.recovery.enabled,
        recovery_attempts=settings.recovery.attempts,
        recovery_delay_seconds=settings.recovery.delay_seconds,
        flap_limit=settings.recovery.flap_limit,
        flap_half_life_seconds=settings.recovery.flap_half_life_seconds,
        brake_share=settings.recovery.brake_share,
        brake_services=settings.recovery.brake_services,
        brake_window_seconds=settings.recovery.brake_window_seconds,
        notice_delay_seconds=settings.notification_delay_seconds,
    )


def consul_address(settings: Settings) -> ConsulAddress:
    """Consul's address, as Consul's own tools would understand the settings."""
    from citadel_consul.consul.address import parse_address

    consul = settings.consul
    address = parse_address(consul.address)
    scheme = "https" if consul.ssl and address.scheme == "http" else address.scheme
    return replace(
        address,
        scheme=scheme,
        token=consul.read_token(),
        cacert=_text(consul.cacert),
        capath=_text(consul.capath),
        client_cert=_text(consul.client_cert),
        client_key=_text(consul.client_key),
        verify=consul.ssl_verify,
        tls_server_name=consul.tls_server_name,
    )


def caller() -> str:
    """Who calls, for the record: ``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


_FILE = click.option("--config", "config_path", type=click.Path(path_type=Path), help="Configuration file.")
_ELSEWHERE = (
    click.option("--stack", help="Stack to work on; default: the only one in Consul."),
    click.option("--consul-address", metavar="ADDR", help="Consul's HTTP API; default: CONSUL_HTTP_ADDR."),
    click.option("--consul-token-file", metavar="FILE", help="File that holds the Consul token."),
)
_FORMAT = click.option("-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True, help="Format.")
SHARED_FLAGS = ("stack", "consul_address", "consul_token_file")


def command_options(function: Callable[Concatenate[Invocation, P], R]) -> Callable[P, R]:
    """Add the options that every command takes, and hand the command an :class:`Invocation` in their place."""
    return settings_options()(function)


def settings_options(
    *keys: str, elsewhere: bool = True
) -> Callable[[Callable[Concatenate[Invocation, P], R]], Callable[P, R]]:
    """As :func:`command_options`; the command's own options named ``keys`` go into the settings as well.

    A command that brings a Consul and a stack of its own is not ``elsewhere``: there is nothing to choose.
    """
    flags = (*SHARED_FLAGS, *keys) if elsewhere else keys

    def decorate(function: Callable[Concatenate[Invocation, P], R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            from citadel_consul.config.settings import load_settings

            config_path: Any = kwargs.pop("config_path")
            output = str(kwargs.pop("output"))
            given = {name: kwargs.pop(name) for name in flags}
            return function(Invocation(load_settings(given, None, config_path), output), *args, **kwargs)

        for option in (_FORMAT, *reversed(_ELSEWHERE if elsewhere else ()), _FILE):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def run(work: Coroutine[Any, Any, R]) -> R:
    """Run a command's work in an event loop of its own."""
    return asyncio.run(work)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
