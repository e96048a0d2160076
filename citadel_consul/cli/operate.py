"""up, down, restart, recover: request an operation and follow it. (So do drain and undrain, see ``drain``.)"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from citadel_consul.cli.completing import complete_service
from citadel_consul.cli.following import how_to_go_on
from citadel_consul.cli.invocation import Invocation, caller, command_options, run
from citadel_consul.cli.printing import print_answer
from citadel_consul.cli.progress import display_for, follow_to_end, raise_unless_succeeded
from citadel_consul.core.answers.operations import operation_answer
from citadel_consul.core.answers.results import result_of
from citadel_consul.core.operation import ALL, Kind, Operation, Options, StepAction, StepState
from citadel_consul.errors import InvalidInput, Problem, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from citadel_consul.consul.client import ConsulClient
    from citadel_consul.core.snapshot import Snapshot
    from citadel_consul.store.keys import Keys


MOST_POINTERS = 3


def operation_options(function: Callable[..., None]) -> Callable[..., None]:
    """What every request can say."""

    @click.option("--timeout", metavar="DURATION", help="How long the operation may take, e.g. 5m.")
    @click.option("--detach", is_flag=True, help="Do not wait for the end; print the operation's id.")
    @click.option("--reason", default="", help="Why, for the record.")
    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)

    return wrapped


@click.command(epilog="Example: citadel up api-gateway --on-failure rollback")
@click.argument("services", nargs=-1, metavar="[SERVICE[@NODE]]...", shell_complete=complete_service)
@click.option(
    "--on-failure",
    type=click.Choice(["rollback", "keep", "continue"]),
    help="Instead of what each service's spec says.",
)
@operation_options
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
    options = Options(on_failure=policy, timeout_seconds=seconds_of_option(timeout), reason=reason)
    run(request_operation(invocation, Kind.STARTUP, services or (ALL,), options, detach=detach))


@click.command(epilog="Example: citadel down redis --cascade")
@click.argument("services", nargs=-1, metavar="[SERVICE[@NODE]]...", shell_complete=complete_service)
@click.option("--cascade", is_flag=True, help="Take the running dependents down too, before what they need.")
@click.option("--kill", is_flag=True, help="Do not wait for a graceful end.")
@operation_options
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
    options = Options(cascade=cascade, graceful=not kill, timeout_seconds=seconds_of_option(timeout), reason=reason)
    run(request_operation(invocation, Kind.SHUTDOWN, services or (ALL,), options, detach=detach))


@click.command(epilog="Example: citadel restart embedding-service --rolling")
@click.argument("services", nargs=-1, required=True, metavar="SERVICE[@NODE]...", shell_complete=complete_service)
@click.option("--cascade", is_flag=True, help="Stop the running dependents before, and start them after it.")
@click.option("--rolling", is_flag=True, help="One instance after the other, each drained before it is stopped.")
@click.option("--subtree", is_flag=True, help="With --rolling: all that needs it as well, after it.")
@click.option("--force", is_flag=True, help="With --rolling: also if running dependents can spare no instance.")
@click.option("--drain-timeout", metavar="DURATION", help="With --rolling: longest drain of an instance; 0s: none.")
@operation_options
@command_options
def restart(
    invocation: Invocation,
    services: tuple[str, ...],
    cascade: bool,
    rolling: bool,
    subtree: bool,
    force: bool,
    drain_timeout: str | None,
    timeout: str | None,
    detach: bool,
    reason: str,
) -> None:
    """Restart services in place; dependents do afterwards what their edge says (on_recovery).

    `citadel restart all` restarts the whole stack, in order. With --rolling clients notice nothing: the next instance
    is not touched before the last is healthy again, nor while running dependents need it.
    """
    _check_rolling(
        rolling, cascade, {"--subtree": subtree, "--force": force, "--drain-timeout": drain_timeout is not None}
    )
    options = Options(
        cascade=cascade,
        timeout_seconds=seconds_of_option(timeout),
        reason=reason,
        rolling=rolling,
        subtree=subtree,
        force=force,
        drain_seconds=seconds_of_option(drain_timeout, "--drain-timeout", zero=True),
    )
    run(request_operation(invocation, Kind.RESTART, services, options, detach=detach))


@click.command(epilog="Example: citadel recover qdrant")
@click.argument("services", nargs=-1, required=True, metavar="SERVICE[@NODE]...", shell_complete=complete_service)
@operation_options
@command_options
def recover(invocation: Invocation, services: tuple[str, ...], timeout: str | None, detach: bool, reason: str) -> None:
    """Restart what is broken of a service (all of it if nothing is), verify it, and tell its dependents."""
    options = Options(timeout_seconds=seconds_of_option(timeout), reason=reason or "requested")
    run(request_operation(invocation, Kind.RECOVER, services, options, detach=detach))


async def request_operation(
    invocation: Invocation, kind: Kind, targets: tuple[str, ...], options: Options, *, detach: bool
) -> None:
    """Request an operation, and follow it to its end unless ``detach`` is set."""
    from citadel_consul.store.requests import submit

    async with invocation.consul() as client:
        state = await invocation.read(client)
        for warning in refuse_early(state.snapshot(), kind, targets, options):
            click.echo(f"warning: {warning}", err=True)
        operation = await submit(client, state.keys, kind, targets, options, requested_by=caller())
        if detach:
            _showrequest_operation(operation, invocation.output)
            return
        ended = await _follow(client, state.keys, operation, invocation.output)
        if invocation.output != "table":
            snapshot = (await invocation.read(client)).snapshot()
            print_answer(result_of(snapshot, ended, time.time()), invocation.output)
    point_to_output(ended)
    raise_unless_succeeded(ended)


async def _follow(client: ConsulClient, keys: Keys, operation: Operation, output: str) -> Operation:
    """Follow to the end; Ctrl-C ends the following and not the operation, so it is said how to go on."""
    try:
        return await follow_to_end(client, keys, operation, display_for(output))
    except asyncio.CancelledError:
        click.echo(f"\n{how_to_go_on(operation.id)}", err=True)
        raise


def _showrequest_operation(operation: Operation, output: str) -> None:
    if output == "table":
        click.echo(operation.id)
    else:
        print_answer(operation_answer(operation), output)


def point_to_output(operation: Operation) -> None:
    """Say where to look when services failed to start."""
    failed = (s for s in operation.steps if s.state is StepState.FAILED and s.action is StepAction.START)
    services = dict.fromkeys(step.service for step in failed)
    if services:
        ways = " · ".join(f"citadel logs {service}" for service in list(services)[:MOST_POINTERS])
        click.echo(f"see {ways} · citadel explain {next(iter(services))}", err=True)


def refuse_early(snapshot: Snapshot, kind: Kind, targets: tuple[str, ...], options: Options) -> tuple[str, ...]:
    """Raise at once what the leader would refuse, else return what it will do to others.

    The leader looks again when the operation begins: things may change.
    """
    from citadel_consul.core.plan import plan

    if not snapshot.specs:
        raise Refused(f"stack {snapshot.stack!r} has no services: citadel apply FILE writes them")
    check_targets(snapshot, targets)
    planned = plan(snapshot, Operation(id="", kind=kind, targets=targets, options=options))
    if planned.refusal is not None:
        raise Refused(planned.refusal)
    return planned.warnings


def check_targets(snapshot: Snapshot, targets: tuple[str, ...]) -> None:
    """Raise InvalidInput for targets that name nothing."""
    problems = list(_unknown(snapshot, targets))
    if problems:
        raise InvalidInput(problems)


def _unknown(snapshot: Snapshot, targets: tuple[str, ...]) -> Iterable[Problem]:
    """Targets that name nothing, each with what may have been meant."""
    from citadel_consul.config.suggestions import suggest

    for target in targets:
        service, _, node = target.partition("@")
        spec = snapshot.specs.get(service)
        if target == ALL:
            continue
        if spec is None:
            yield Problem("", f"unknown service {service!r}", suggest(service, snapshot.specs, "known are"))
        elif "@" in target and node not in spec.nodes:
            yield Problem(
                "", f"{service} has no instance on node {node!r}", suggest(node, spec.nodes, "it has some on")
            )


def _check_rolling(rolling: bool, cascade: bool, others: Mapping[str, bool]) -> None:
    """Raise InvalidInput for options that say nothing together."""
    if rolling and cascade:
        raise InvalidInput.at("--cascade", "stops the dependents, and --rolling keeps them up", "name one of them")
    given = next((name for name, present in others.items() if present), None)
    if given is not None and not rolling:
        raise InvalidInput.at(given, "belongs to a rolling restart", "add --rolling")


def seconds_of_option(text: str | None, name: str = "--timeout", *, zero: bool = False) -> float | None:
    """The seconds that an option called ``name`` stands for; None if it was not given.

    Raises InvalidInput for what is no duration, and for none at all unless ``zero`` has a meaning.
    """
    if text is None:
        return None
    from citadel_consul.config.durations import parse_duration

    try:
        seconds = parse_duration(text)
    except InvalidInput as error:
        raise InvalidInput([replace(problem, place=name) for problem in error.problems]) from None
    if seconds <= 0.0 and not zero:
        raise InvalidInput.at(name, "an operation needs some time", "write it like 30s or 5m")
    return seconds
