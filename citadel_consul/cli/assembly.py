"""Putting the parts of a running process together: orchestrator with its API, node agent with its backend."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from citadel_consul.agent.agent import AgentConfig, NodeAgent
from citadel_consul.agent.chronicle import Chronicle
from citadel_consul.backends.routing import RoutingBackend
from citadel_consul.cli.invocation import defaults_of
from citadel_consul.config.addresses import HostPort
from citadel_consul.config.settings import Settings
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.model import ServiceSpec
from citadel_consul.errors import InvalidInput, Refused
from citadel_consul.notification.channel import Channel, open_channels
from citadel_consul.orchestrator.orchestrator import Orchestrator, OrchestratorConfig
from citadel_consul.rendering.definition import render_definition
from citadel_consul.rendering.expansion import expand
from citadel_consul.rendering.registration import to_agent_api
from citadel_consul.rendering.scope import NodeContext
from citadel_consul.telemetry.listener import address_of, bind
from citadel_consul.telemetry.supervision import Supervision

log = logging.getLogger(__name__)

UNSPECIFIED = frozenset({"0.0.0.0", "::"})  # noqa: S104  # compared with, not bound to


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is: its stack, node, address and Consul as the services of the node reach it."""

    stack: str
    node: str
    address: str
    consul_http_addr: str


async def run_orchestrator(
    client: ConsulClient, settings: Settings, place: Place, supervision: Supervision | None = None
) -> None:
    """Bind the API, then stand by and lead, until cancelled."""
    # A node agent, which is assembled here as well, serves no API: it starts in half the time without FastAPI.
    from citadel_consul.api.app import create_app
    from citadel_consul.api.server import serve

    listen = settings.api.bind
    listener = bind(listen.host, listen.port, setting="api.bind", flag="--api-bind")
    with listener:
        host = place.address if listen.host in UNSPECIFIED else listen.host
        config = OrchestratorConfig(
            stack=place.stack,
            node=place.node,
            api=address_of(listener, host),
            defaults=defaults_of(settings),
            check_ttl_seconds=settings.leader_check_ttl_seconds,
            session_ttl_seconds=settings.session_ttl_seconds,
        )
        channels = channels_of(settings)
        orchestrator = Orchestrator(client, config, channels=channels, supervision=supervision)
        app = create_app(
            client, orchestrator, metrics_enabled=settings.metrics_enabled, allowed_hosts=settings.api.hosts
        )
        async with asyncio.TaskGroup() as group:
            leading = group.create_task(orchestrator.run())
            serving = group.create_task(serve(app, listener, cert=settings.api.tls_cert, key=settings.api.tls_key))
            try:
                await leading
            finally:  # give the lock back first: who is refused a connection must not find it still held
                serving.cancel()
                for channel in channels:
                    await channel.aclose()


def channels_of(settings: Settings) -> tuple[Channel, ...]:
    """The ways to those who are to be notified; none if notification is switched off. Raises InvalidInput."""
    directories = (settings.template_dir,) if settings.template_dir is not None else ()
    return open_channels(settings.receivers, directories) if settings.notification_enabled else ()


@asynccontextmanager
async def node_agent(
    client: ConsulClient, settings: Settings, place: Place, supervision: Supervision | None = None
) -> AsyncIterator[NodeAgent]:
    """The node agent of a node with its backends; there is one for a node and a state folder."""
    folder = settings.state_dir / place.stack / place.node
    with only_one(folder / "agent.lock", f"node agent for node {place.node!r} of stack {place.stack!r}"):
        directories = (settings.template_dir,) if settings.template_dir is not None else ()
        context = NodeContext(
            place.node,
            place.address,
            place.stack,
            data_root=str((folder / "data").absolute()),
            consul_http_addr=place.consul_http_addr,
        )

        def render(spec: ServiceSpec, status: str) -> dict[str, object]:
            return to_agent_api(render_definition(spec, context, directories), status)

        async with RoutingBackend(settings.state_dir, place.stack) as backend, AsyncExitStack() as stack:
            listener, api = _measurements_listener(settings, place)
            if listener is not None:
                stack.enter_context(listener)
            config = AgentConfig(
                stack=place.stack,
                node=place.node,
                address=place.address,
                api=api,
                stop_timeout_seconds=settings.shutdown_timeout_seconds,
                home=f"{socket.gethostname()}:{folder.absolute()}",
            )
            chronicle = Chronicle(folder / "history.jsonl")
            stack.callback(chronicle.close)
            yield NodeAgent(
                client,
                config,
                backend,
                expand=lambda spec: expand(spec, context),
                render=render,
                chronicle=chronicle,
                listener=listener,
                supervision=supervision,
            )


def _measurements_listener(settings: Settings, place: Place) -> tuple[socket.socket | None, str]:
    """Where the agent shows what it measures, and how others reach that.

    Raises InvalidInput if a place that was asked for cannot be had. The one that nobody asked for may be missing: it is
    for looking at, and a node whose address is not its own (behind a NAT) still has services to run.
    """
    wish = settings.agent_bind
    listen = wish if wish is not None else HostPort(place.address, 0)
    try:
        listener = bind(listen.host, listen.port, setting="agent.bind", flag="--agent-bind")
    except InvalidInput as error:
        if wish is not None:
            raise
        log.warning("nobody can see what is measured on this node: %s", error)
        return None, ""
    return listener, address_of(listener, place.address if listen.host in UNSPECIFIED else listen.host)


@contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold a file lock for the time of the block. Raises Refused if another process holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        remedy = "choose another folder with CITADEL_STATE_DIR, or give this user the right to write there"
        raise InvalidInput.at("setting state_dir", f"{path.parent}: {error.strerror}", remedy) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another {what} runs on this machine: there is one for a node ({path} is locked)") from None
        yield
    finally:
        os.close(descriptor)
