"""drain, undrain: take instances out of service without a client noticing, and put them back."""

from __future__ import annotations

import click

from citadel_consul.cli.completing import complete_service
from citadel_consul.cli.invocation import Invocation, command_options, run
from citadel_consul.cli.operate import operation_options, request_operation, seconds_of_option
from citadel_consul.core.operation import Kind, Options


@click.command(epilog="Example: citadel drain embedding-service@hx-gpu-01 --drain-timeout 2m --reason 'new driver'")
@click.argument("services", nargs=-1, required=True, metavar="SERVICE[@NODE]...", shell_complete=complete_service)
@click.option("--drain-timeout", metavar="DURATION", help="How long it may drain before it is stopped, e.g. 2m.")
@click.option("--force", is_flag=True, help="Also if running dependents need it; they stay up.")
@operation_options
@command_options
def drain(
    invocation: Invocation,
    services: tuple[str, ...],
    drain_timeout: str | None,
    force: bool,
    timeout: str | None,
    detach: bool,
    reason: str,
) -> None:
    """Take instances out of DNS, let them finish what they have in hand, and stop them.

    They stay down until `citadel undrain` or `citadel up`. What is cancelled while it drains serves on.
    """
    options = Options(
        force=force,
        timeout_seconds=seconds_of_option(timeout),
        reason=reason,
        drain_seconds=seconds_of_option(drain_timeout, "--drain-timeout", zero=True),
    )
    run(request_operation(invocation, Kind.DRAIN, services, options, detach=detach))


@click.command(epilog="Example: citadel undrain embedding-service@hx-gpu-01")
@click.argument("services", nargs=-1, required=True, metavar="SERVICE[@NODE]...", shell_complete=complete_service)
@operation_options
@command_options
def undrain(invocation: Invocation, services: tuple[str, ...], timeout: str | None, detach: bool, reason: str) -> None:
    """Start drained instances again, and have clients find them: the same as `citadel up` of them."""
    options = Options(timeout_seconds=seconds_of_option(timeout), reason=reason or "undrained")
    run(request_operation(invocation, Kind.STARTUP, services, options, detach=detach))
