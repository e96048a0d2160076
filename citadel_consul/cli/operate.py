"""up, down, restart, recover: request an operation and follow it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from citadel_consul.cli.invocation import Invocation, caller, command_options, run
from citadel_consul.cli.printing import print_answer
from citadel_consul.cli.progress import display_for, follow_to_end, raise_unless_succeeded
from citadel_consul.core.operation import ALL, Kind, Operation, Options
from citadel_consul.errors import InvalidInput, Problem, Refused

if TYPE_CHECKING:
    from citadel_consul.core.snapshot import Snapshot


def _operation_options(function: Callable[..., None]) -> Callable[..., None]:
    @click.option("--timeout", metavar="DURATION", help="How long the operation may take, e.g. 5m.")
    @click.option("--detach", is_flag=True, help="Do not wait for the end; print the operation's id.")
    @click.option("--reason", default="", help="Why, for the record.")
    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)

    return wrapped


@click.command(epilog="Example: citadel up api-gateway --on-failure rollback")
@click.argument("services", nargs=-1, metavar="[SERVICE[@NODE]]...")
@click.option(
    "--on-failure",
    type=click.Choice(["rollback", "keep", "continue"]),
    help="Instead of what each service's spec says.",
)
@_operation_options
@command_options
def up(
    invocation: Invocation,
    services: tuple[str, ...],
    on_failure: str | None,
    timeout: str | None,
    detach: bool,
    reason: str,
) -> None:
    """Start services, and everything that they need, in dependency order.

    Without arguments: the whole stack. What runs already is left alone.
    """
    from citadel_consul.core.model import OnFailure

    policy = OnFailure(on_failure) if on_failure is not None else None
    options = Options(on_failure=policy, timeout_seconds=_duration(timeout), reason=reason)
    run(_request(invocation, Kind.STARTUP, services or (ALL,), options, detach=detach))


@click.command(epilog="Example: citadel down redis --cascade")
@click.argument("services", nargs=-1, metavar="[SERVICE[@NODE]]...")
@click.option("--cascade", is_flag=True, help="Take the running dependents down too, before what they need.")
@click.option("--kill", is_flag=True, help="Do not wait for a graceful end.")
@_operation_options
@command_options
def down(
    invocation: Invocation,
    services: tuple[str, ...],
    cascade: bool,
    kill: bool,
    timeout: str | None,
    detach: bool,
    reason: str,
) -> None:
    """Stop services in reverse dependency order.

    Without arguments: the whole stack. A service that running services need is only stopped with --cascade.
    """
    options = Options(cascade=cascade, graceful=not kill, timeout_seconds=_duration(timeout), reason=reason)
    run(_request(invocation, Kind.SHUTDOWN, services or (ALL,), options, detach=detach))


@click.command(epilog="Example: citadel restart embedding-service")
@click.argument("services", nargs=-1, required=True, metavar="SERVICE[@NODE]...")
@click.option("--cascade", is_flag=True, help="Stop the running dependents before, and start them after it.")
@_operation_options
@command_options
def restart(
    invocation: Invocation,
    services: tuple[str, ...],
    cascade: bool,
    timeout: str | None,
    detach: bool,
    reason: str,
) -> None:
    """Restart services in place; dependents do afterwards what their edge says (on_recovery).

    `citadel restart all` restarts the whole stack, in order.
    """
    options = Options(cascade=cascade, timeout_seconds=_duration(timeout), reason=reason)
    run(_request(invocation, Kind.RESTART, services, options, detach=detach))


@click.command(epilog="Example: citadel recover qdrant")
@click.argument("services", nargs=-1, required=True, metavar="SERVICE[@NODE]...")
@_operation_options
@command_options
def recover(invocation: Invocation, services: tuple[str, ...], timeout: str | None, detach: bool, reason: str) -> None:
    """Restart what is broken of a service (all of it if nothing is), verify it, and tell its dependents."""
    options = Options(timeout_seconds=_duration(timeout), reason=reason or "requested")
    run(_request(invocation, Kind.RECOVER, services, options, detach=detach))


async def _request(
    invocation: Invocation, kind: Kind, targets: tuple[str, ...], options: Options, *, detach: bool
) -> None:
    from citadel_consul.store.keys import Keys
    from citadel_consul.store.reading import read_state
    from citadel_consul.store.requests import submit

    async with invocation.consul() as client:
        stack = await invocation.stack(client)
        state = await read_state(client, stack, invocation.defaults)
        refuse_early(state.snapshot(), kind, targets, options)
        keys = Keys(stack)
        operation = await submit(client, keys, kind, targets, options, requested_by=caller())
        if detach:
            click.echo(operation.id)
            return
        ended = await follow_to_end(client, keys, operation, display_for(invocation.output))
        _finish(ended, invocation.output)


def refuse_early(snapshot: Snapshot, kind: Kind, targets: tuple[str, ...], options: Options) -> None:
    """Say at once what the leader would refuse. It looks again when the operation begins: things may change."""
    from citadel_consul.core.plan import plan, resolve_targets

    if not snapshot.specs:
        raise Refused(f"stack {snapshot.stack!r} has no services: citadel apply FILE writes them")
    _, unknown = resolve_targets(snapshot, targets)
    if unknown is not None:
        raise InvalidInput([Problem("", unknown, "citadel services lists them")])
    refusal = plan(snapshot, Operation(id="", kind=kind, targets=targets, options=options)).refusal
    if refusal is not None:
        raise Refused(refusal)


def _finish(operation: Operation, output: str) -> None:
    if output != "table":
        print_answer(operation, output)
    raise_unless_succeeded(operation)


def _duration(text: str | None) -> float | None:
    if text is None:
        return None
    from citadel_consul.config.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidInput.at("--timeout", str(error)) from None
