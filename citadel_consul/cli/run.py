"""orchestrator, agent: the long-running processes."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import click

from citadel_consul.cli.invocation import Invocation, consul_address, settings_options

if TYPE_CHECKING:
    from citadel_consul.config.settings import Settings
    from citadel_consul.consul.client import ConsulClient
    from citadel_consul.telemetry.supervision import Supervision


@click.command(epilog="Example: citadel orchestrator --config /opt/citadel/config/orchestrator.yaml")
@click.option("--node", help="Name of this node in the stack file; default: the host name's first label.")
@click.option("--node-address", metavar="HOST", help="Address at which other nodes reach this one.")
@click.option("--api-bind", metavar="HOST:PORT", help="Where the HTTP API listens; default: 127.0.0.1:8000.")
@click.option("--api-allow-insecure-bind", is_flag=True, default=None, help="Allow it beyond loopback without TLS.")
@click.option("--debug", is_flag=True, help="Log everything, the libraries included.")
@click.option("--verbose", is_flag=True, help="Log at level INFO whatever the settings say.")
@settings_options("node", "node_address", "api_bind", "api_allow_insecure_bind")
def orchestrator(invocation: Invocation, debug: bool, verbose: bool) -> None:
    """Run an orchestrator: it stands by, leads when it is its turn, and serves the HTTP API either way.

    Run one on each of several nodes; whichever leads, all answer.
    """
    configure_logs(invocation.settings, debug=debug, verbose=verbose, role="orchestrator")
    run_until_signal(lambda supervision: _orchestrator(invocation, supervision))


@click.command(epilog="Example: citadel agent --node hx-orc-01 --stack ai-platform")
@click.option("--node", help="Name of this node in the stack file; default: the host name's first label.")
@click.option("--node-address", metavar="HOST", help="Address at which other nodes reach this one.")
@click.option("--state-dir", metavar="DIR", help="Folder of records, logs and data of this node.")
@click.option("--agent-bind", metavar="HOST:PORT", help="Where it shows what it measures; default: its address.")
@click.option("--debug", is_flag=True, help="Log everything, the libraries included.")
@click.option("--verbose", is_flag=True, help="Log at level INFO whatever the settings say.")
@settings_options("node", "node_address", "state_dir", "agent_bind")
def agent(invocation: Invocation, debug: bool, verbose: bool) -> None:
    """Run the node agent: it starts, watches and stops the services of this node. One for each node.

    Ending the agent ends no service; the next agent finds them and goes on.
    """
    configure_logs(invocation.settings, debug=debug, verbose=verbose, role="agent")
    run_until_signal(lambda supervision: _agent(invocation, supervision))


def configure_logs(settings: Settings, *, debug: bool, verbose: bool, role: str = "dev") -> None:
    """Set up the log as settings and flags say. A crash, or the abort by a watchdog, leaves a traceback there."""
    from citadel_consul.telemetry.logs import configure

    level = "DEBUG" if debug else "INFO" if verbose else str(settings.log_level)
    fields = {"SYSLOG_IDENTIFIER": f"citadel-{role}", "CITADEL_NODE": settings.node}
    if settings.stack is not None:
        fields["CITADEL_STACK"] = settings.stack
    configure(level, str(settings.log_format), fields)
    faulthandler.enable()


def run_until_signal(work: Callable[[Supervision], Coroutine[Any, Any, None]]) -> None:
    """Run ``work`` under the service manager, if there is one; SIGTERM and SIGINT cancel it, which ends it in order."""
    from citadel_consul.telemetry.memory import give_back_for_ever, limit_arenas, set_aside_what_stays
    from citadel_consul.telemetry.supervision import Supervision

    limit_arenas()
    supervision = Supervision.from_environment(on_ready=set_aside_what_stays)

    async def supervised() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work(supervision))

        def end() -> None:
            supervision.stopping()
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        aside = [asyncio.ensure_future(supervision.run()), asyncio.ensure_future(give_back_for_ever())]
        try:
            await task
        except asyncio.CancelledError:
            return
        finally:
            for other in aside:
                other.cancel()

    asyncio.run(supervised())


async def _orchestrator(invocation: Invocation, supervision: Supervision) -> None:
    from citadel_consul.cli.assembly import Place, run_orchestrator
    from citadel_consul.consul.patience import patiently

    settings = invocation.settings
    supervision.say(f"waiting for Consul at {settings.consul.address}")
    async with invocation.consul() as client:
        address = await node_address(client, settings)
        stack = await patiently(lambda: invocation.stack(client))
        place = Place(stack, settings.node, address, local_consul(settings))
        await run_orchestrator(client, settings, place, supervision)


async def _agent(invocation: Invocation, supervision: Supervision) -> None:
    from citadel_consul.cli.assembly import Place, node_agent
    from citadel_consul.consul.patience import patiently

    settings = invocation.settings
    supervision.say(f"waiting for Consul at {settings.consul.address}")
    async with invocation.consul() as client:
        address = await node_address(client, settings)
        stack = await patiently(lambda: invocation.stack(client))
        place = Place(stack, settings.node, address, local_consul(settings))
        async with node_agent(client, settings, place, supervision) as running:
            await running.run()


async def node_address(client: ConsulClient, settings: Settings) -> str:
    """At which address others reach this node: the setting, or what the local Consul agent says of itself.

    Waits for Consul: at the boot of a machine it may come up after us.
    """
    from citadel_consul.consul.patience import patiently

    if settings.node_address is not None:
        return settings.node_address
    return (await patiently(client.agent_self)).address


def local_consul(settings: Settings) -> str:
    """``CONSUL_HTTP_ADDR`` for services: an address, and never a secret."""
    return str(consul_address(settings))
