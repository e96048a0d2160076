"""How ``citadel dev`` runs a stack: Consul below, then the control plane, then the services."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import click

from citadel_consul.cli.assembly import Place, node_agent, run_orchestrator
from citadel_consul.cli.invocation import Invocation, caller
from citadel_consul.cli.progress import display_for, follow_to_end, raise_unless_succeeded
from citadel_consul.cli.smoke import Smoke, load_smoke, send_smoke
from citadel_consul.cli.stackfile import load, show_difference
from citadel_consul.config.settings import Settings
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.binary import find_consul
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.embedded import EmbeddedConsul
from citadel_consul.core.model import Stack
from citadel_consul.core.operation import ALL, Kind, Operation, Options
from citadel_consul.errors import OperationFailed
from citadel_consul.store.applying import read_difference, write_difference
from citadel_consul.store.keys import Keys
from citadel_consul.store.requests import submit

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Dev:
    """One run of ``citadel dev``."""

    invocation: Invocation
    stack: Stack
    file: Path
    data_dir: Path
    smoke: Smoke | None
    once: bool
    start: bool

    @property
    def settings(self) -> Settings:
        return replace(self.invocation.settings, state_dir=self.data_dir / "state", stack=self.stack.name)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that the stack file names: an agent is run for each of them."""
        return tuple(dict.fromkeys(node for spec in self.stack.services.values() for node in spec.nodes))


def run_dev(invocation: Invocation, file: Path, *, once: bool, start: bool, data_dir: Path | None) -> None:
    """Run until Ctrl-C, or once; raises what went wrong."""
    stack = load(file, invocation)
    folder = data_dir if data_dir is not None else default_data_dir(stack.name)
    smoke = load_smoke(file.parent / "smoke.yaml")
    dev = Dev(invocation, stack, file, folder.absolute(), smoke, once, start)
    asyncio.run(_run(dev))


def default_data_dir(stack: str) -> Path:
    """``${XDG_STATE_HOME:-~/.local/state}/citadel/dev/<stack>``: a folder of the user's own, also for root."""
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():
        base = Path.home() / ".local" / "state"
    return base / "citadel" / "dev" / stack


async def _run(dev: Dev) -> None:
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    binary = await asyncio.to_thread(find_consul)
    async with EmbeddedConsul(dev.data_dir / "consul", binary) as consul:
        address = replace(parse_address(consul.address), token=None)
        click.echo(f"Consul {binary.version} at {consul.url}" + (" (found running)" if consul.reused else ""))
        async with ConsulClient(address) as client, asyncio.TaskGroup() as group:
            background: list[asyncio.Task[None]] = [group.create_task(_supervise(consul))]
            try:
                background += await _control_plane(group, dev, client, consul.address)
                await _apply(dev, client)
                await _live(dev, client, consul, interrupted)
            finally:
                for task in reversed(background):
                    task.cancel()
                    await asyncio.wait({task})


async def _control_plane(
    group: asyncio.TaskGroup, dev: Dev, client: ConsulClient, consul_address: str
) -> list[asyncio.Task[None]]:
    place = Place(dev.stack.name, "dev", LOOPBACK, consul_address)
    tasks = [group.create_task(run_orchestrator(client, dev.settings, place))]
    tasks += [group.create_task(_agent(dev, client, replace(place, node=node))) for node in dev.nodes]
    return tasks


async def _agent(dev: Dev, client: ConsulClient, place: Place) -> None:
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(node_agent(client, dev.settings, place))
        await agent.run()


async def _apply(dev: Dev, client: ConsulClient) -> None:
    difference = await read_difference(client, dev.stack, prune=False)
    await write_difference(client, difference)
    if len(difference.changes) == len(dev.stack.services) + len(dev.stack.edges):
        click.echo(f"stack {dev.stack.name}: {len(dev.stack.services)} services, {len(dev.stack.edges)} edges written")
    elif difference.changes:
        show_difference(difference)


async def _supervise(consul: EmbeddedConsul) -> None:
    await consul.supervise()


async def _live(dev: Dev, client: ConsulClient, consul: EmbeddedConsul, interrupted: asyncio.Event) -> None:
    """Start, be of use, stop; raises what failed first, but stops in order whatever failed."""
    failures: list[OperationFailed] = []
    began = time.monotonic()
    started = await _unless(interrupted, lambda: _operate(dev, client, Kind.STARTUP)) if dev.start else None
    if dev.once:
        await _use_once(dev, started, failures)
    else:
        _show_screen(dev, consul, started, time.monotonic() - began)
        await interrupted.wait()
    click.echo("stopping everything in order (Ctrl-C again leaves the services running)")
    interrupted.clear()
    stopped = await _unless(interrupted, lambda: _operate(dev, client, Kind.SHUTDOWN))
    if stopped is None:
        click.echo(f"services were left running; citadel dev {dev.file} finds them again")
    else:
        _note_failure(stopped, failures)
    if failures:
        raise failures[0]


async def _use_once(dev: Dev, started: Operation | None, failures: list[OperationFailed]) -> None:
    if started is None:
        failures.append(OperationFailed("interrupted before the stack was up"))
        return
    _note_failure(started, failures)
    if failures or dev.smoke is None:
        return
    try:
        await send_smoke(dev.smoke)
    except OperationFailed as error:
        failures.append(error)


def _note_failure(operation: Operation, failures: list[OperationFailed]) -> None:
    try:
        raise_unless_succeeded(operation)
    except OperationFailed as error:
        failures.append(error)


async def _operate(dev: Dev, client: ConsulClient, kind: Kind) -> Operation:
    keys = Keys(dev.stack.name)
    operation = await submit(client, keys, kind, (ALL,), Options(), requested_by=caller())
    return await follow_to_end(client, keys, operation, display_for("table"))


async def _unless(interrupted: asyncio.Event, work: Callable[[], Awaitable[Operation]]) -> Operation | None:
    """The result of ``work``, or None if it was interrupted."""
    task = asyncio.ensure_future(work())
    waiting = asyncio.ensure_future(interrupted.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for left in (task, waiting):
            if not left.done():
                left.cancel()
                await asyncio.wait({left})


def _show_screen(dev: Dev, consul: EmbeddedConsul, started: Operation | None, seconds: float) -> None:
    api = f"http://{dev.settings.api.bind}"
    rows = [(str(started.state), f"after {seconds:.1f} s")] if started is not None else []
    rows += [
        ("API", f"{api}/docs"),
        ("status", f"curl {api}/api/v1/orchestrator/status"),
        ("Consul UI", consul.ui_url or ""),
        ("CLI", f"CONSUL_HTTP_ADDR={consul.address} citadel status"),
    ]
    if dev.smoke is not None:
        rows.append(("try", dev.smoke.as_curl()))
    rows.append(("data", str(dev.data_dir)))
    click.echo()
    for name, text in rows:
        click.echo(f"  {click.style(name.rjust(9), bold=True)}  {text}")
    click.echo("\n  Ctrl-C stops everything in order.\n")
