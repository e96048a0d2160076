"""How ``citadel dev`` runs a stack: Consul below, then the control plane, then the services."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from citadel_consul.backends.journal import Journal, UnreadableRecord
from citadel_consul.backends.procfs import boot_id
from citadel_consul.cli.devscreen import failures, screen
from citadel_consul.cli.interruption import Interruption
from citadel_consul.cli.invocation import Invocation
from citadel_consul.cli.lifetime import Lifetime
from citadel_consul.cli.occupancy import taken_address, taken_ports
from citadel_consul.cli.run import configure_logs
from citadel_consul.cli.smoke import Smoke, load_smoke
from citadel_consul.cli.stackfile import load, show_difference
from citadel_consul.cli.terminal import Terminal, open_log
from citadel_consul.config.addresses import HostPort
from citadel_consul.config.settings import Settings
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.binary import ConsulBinary, find_consul
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.embedded import EmbeddedConsul
from citadel_consul.consul.ports import Ports, free_ports
from citadel_consul.core.model import Stack
from citadel_consul.core.operation import Operation, OperationState
from citadel_consul.errors import InvalidInput, OperationFailed
from citadel_consul.store.applying import read_difference, write_difference
from citadel_consul.store.devmark import DevMark, write_dev_mark
from citadel_consul.store.keys import Keys

if TYPE_CHECKING:
    from citadel_consul.cli.assembly import Place

LOOPBACK = "127.0.0.1"
LOG_NAME = "citadel.log"


@dataclass(frozen=True, slots=True)
class Dev:
    """One run of ``citadel dev``. ``quiet``: the log goes into ``log_file``, not to standard error. ``dashboard`` is
    where the services in Consul's UI link to."""

    settings: Settings
    stack: Stack
    file: Path
    data_dir: Path
    log_file: Path
    quiet: bool
    smoke: Smoke | None
    once: bool
    start: bool
    dashboard: str | None

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that the stack file names: an agent is run for each of them."""
        return tuple(dict.fromkeys(node for spec in self.stack.services.values() for node in spec.nodes))


def run_dev(invocation: Invocation, file: Path, *, once: bool, start: bool, data_dir: Path | None, logs: str) -> int:
    """Run until it is told to stop, or once; returns the exit status, and raises what went wrong.

    ``logs``: ``file`` keeps the log out of the terminal; ``verbose`` and ``debug`` show it there.
    """
    stack = load(file, invocation)
    smoke = load_smoke(file.parent / "smoke.yaml")
    folder = (data_dir if data_dir is not None else default_data_dir(stack.name)).absolute()
    settings = replace(invocation.settings, state_dir=folder / "state", stack=stack.name, agent_bind=None)
    configure_logs(settings, debug=logs == "debug", verbose=logs == "verbose")
    log_file = folder / LOG_NAME
    open_log(log_file, take_over=logs == "file")
    dashboard = _dashboard(settings)
    settings = _with_api_port(settings)
    _check_ports(settings, stack if start else None)
    # Before the event loop, so that Ctrl-C ends a download at once.
    binary = find_consul(report=lambda line: click.echo(line, err=True))
    dev = Dev(settings, stack, file, folder, log_file, logs == "file", smoke, once, start, dashboard)
    return asyncio.run(_run(dev, binary))


def default_data_dir(stack: str) -> Path:
    """``${XDG_STATE_HOME:-~/.local/state}/citadel/dev/<stack>``: a folder of the user's own, also for root."""
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():
        base = Path.home() / ".local" / "state"
    return base / "citadel" / "dev" / stack


def _dashboard(settings: Settings) -> str | None:
    """What the API says of the health of services, as a link of Consul's UI.

    None where the API's port is another one in each run: a Consul that is told something else is started anew.
    """
    bind = settings.api.bind
    scheme = "http" if settings.api.tls_cert is None else "https"
    return f"{scheme}://{bind}/api/v1/orchestrator/health#{{{{Service.Name}}}}" if bind.port else None


def _with_api_port(settings: Settings) -> Settings:
    """Port 0 means any free one; it is chosen here, because the screen names it."""
    bind = settings.api.bind
    if bind.port != 0:
        return settings
    return replace(settings, api=replace(settings.api, bind=HostPort(bind.host, free_ports().http)))


def _check_ports(settings: Settings, stack: Stack | None) -> None:
    """Raise InvalidInput if somebody else has a port that is needed, with all of them."""
    problems = taken_address("the HTTP API", *settings.api.bind, "choose another one with --api-bind 127.0.0.1:PORT")
    if stack is not None:
        problems += taken_ports(stack, _left_running(settings.state_dir, stack.name))
    if problems:
        raise InvalidInput(problems)


def _left_running(state_dir: Path, stack: str) -> set[str]:
    """The services of an earlier run that may be running still."""
    journal, boot, found = Journal(state_dir, stack), boot_id(), set()
    for instance in journal.instances():
        try:
            record = journal.read(instance)
        except UnreadableRecord:
            continue
        if record is not None and not record.swept and record.boot_id == boot:
            found.add(instance.service)
    return found


async def _run(dev: Dev, binary: ConsulBinary) -> int:
    """Returns the exit status of a run that went well, or was left in the middle."""
    live = dev.quiet  # a log on the same terminal would tear the table apart
    terminal = Terminal(dev.log_file, live=live)
    with Interruption(terminal.lose) as interruption:
        terminal.on_loss = interruption.ask
        try:
            await _run_all(dev, binary, terminal, interruption)
        except asyncio.CancelledError:
            if interruption.left_by is None:
                raise
            terminal.say(f"services were left as they are; citadel dev {dev.file} finds them again")
            return 128 + interruption.left_by
    return 0


def _import_control_plane() -> None:
    for module in ("citadel_consul.cli.assembly", "citadel_consul.api.app", "citadel_consul.api.server"):
        importlib.import_module(module)


async def _run_all(dev: Dev, binary: ConsulBinary, terminal: Terminal, interruption: Interruption) -> None:
    async with AsyncExitStack() as stack:
        consul = EmbeddedConsul(dev.data_dir / "consul", binary, dashboard=dev.dashboard)
        async with asyncio.TaskGroup() as group:
            # What the control plane imports takes as long as Consul's election: 0.6 s of one, 1 s of the other.
            group.create_task(asyncio.to_thread(_import_control_plane))
            await stack.enter_async_context(consul)
        terminal.say(_consul_line(consul, binary))
        client = await stack.enter_async_context(ConsulClient(replace(parse_address(consul.address), token=None)))
        async with _control_plane(dev, client, consul):
            lifetime = Lifetime(client, dev.stack.name, terminal, interruption)
            await _live(dev, lifetime, consul)
    if lifetime.failures:
        raise ExceptionGroup("citadel dev", lifetime.failures)


def _consul_line(consul: EmbeddedConsul, binary: ConsulBinary) -> str:
    notes = []
    if consul.reused:
        notes.append("found running")
    elif consul.ports.http != Ports().http:
        notes.append(f"port {Ports().http} is in use")
    return f"Consul {binary.version} at {consul.url}" + (f" ({', '.join(notes)})" if notes else "")


@asynccontextmanager
async def _control_plane(dev: Dev, client: ConsulClient, consul: EmbeddedConsul) -> AsyncIterator[None]:
    """Orchestrator and agents, for the time of the block; an error of theirs ends it."""
    from citadel_consul.cli.assembly import Place, run_orchestrator

    place = Place(dev.stack.name, "dev", LOOPBACK, consul.address)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_supervise(consul))]
        tasks.append(group.create_task(run_orchestrator(client, dev.settings, place)))
        tasks += [group.create_task(_agent(dev, client, replace(place, node=node))) for node in dev.nodes]
        try:
            yield
        finally:
            for task in reversed(tasks):
                task.cancel()
                await asyncio.wait({task})


async def _agent(dev: Dev, client: ConsulClient, place: Place) -> None:
    from citadel_consul.cli.assembly import node_agent

    async with node_agent(client, dev.settings, place) as agent:
        await agent.run()


async def _supervise(consul: EmbeddedConsul) -> None:
    await consul.supervise()


async def _live(dev: Dev, lifetime: Lifetime, consul: EmbeddedConsul) -> None:
    """Start, be of use, stop in order, whatever failed on the way."""
    terminal = lifetime.terminal
    async with lifetime.noting_failures():
        changed = await _apply(dev, lifetime)
        started = await lifetime.start(changed=changed) if dev.start else None
        if started is not None and started.state is not OperationState.SUCCEEDED:
            for line in failures(started, dev.settings.state_dir, dev.stack.name):
                terminal.say(line)
        if not dev.once:
            if not lifetime.interruption.asked:
                _show_screen(dev, terminal, consul, started)
            await lifetime.interruption.wait()
        elif started is None:
            lifetime.failures.append(OperationFailed("interrupted before the stack was up"))
        elif not lifetime.failures:
            await lifetime.use(dev.smoke)
    terminal.say("stopping everything in order (Ctrl-C again leaves the services as they are)")
    async with lifetime.noting_failures():
        await lifetime.stop()


async def _apply(dev: Dev, lifetime: Lifetime) -> bool:
    """Write the stack file; returns whether that changed anything."""
    await write_dev_mark(lifetime.client, Keys(dev.stack.name), DevMark(str(dev.file.absolute())))
    difference = await read_difference(lifetime.client, dev.stack, prune=False)
    await write_difference(lifetime.client, difference)
    if len(difference.changes) == len(dev.stack.services) + len(dev.stack.edges):
        services, edges = len(dev.stack.services), len(dev.stack.edges)
        lifetime.terminal.say(f"stack {dev.stack.name}: {services} services, {edges} edges written")
    elif difference.changes:
        show_difference(difference)
    return bool(difference.changes)


def _show_screen(dev: Dev, terminal: Terminal, consul: EmbeddedConsul, started: Operation | None) -> None:
    for line in screen(
        started=started,
        api=str(dev.settings.api.bind),
        consul=consul.address,
        ui=consul.ui_url,
        request=dev.smoke.as_curl() if dev.smoke is not None else None,
        log=dev.log_file if dev.quiet else None,
        data=dev.data_dir,
        usual_data=dev.data_dir == default_data_dir(dev.stack.name).absolute(),
    ):
        terminal.say(line)
