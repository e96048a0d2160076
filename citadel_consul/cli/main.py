"""``citadel``: the entry and the list of commands.

Commands are imported when they are called, so that ``citadel --help`` does not pay for Consul, Jinja and the API.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping

import click

from citadel_consul.cli.failures import BAD_INPUT, DONE, INTERRUPTED, reader_gone, report, report_group
from citadel_consul.cli.printing import colours_wanted
from citadel_consul.errors import CitadelError

# name: (module, attribute, help). The help stands here as well, so that the list needs no import.
COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "up": ("operate", "up", "Start services, and what they need, in dependency order."),
    "down": ("operate", "down", "Stop services in reverse dependency order."),
    "restart": ("operate", "restart", "Restart services in place, with their dependents, or one by one."),
    "drain": ("drain", "drain", "Take instances out of DNS, let them finish, and stop them."),
    "undrain": ("drain", "undrain", "Start drained instances again."),
    "recover": ("operate", "recover", "Recover what is broken of a service, and tell its dependents."),
    "status": ("inspect", "status", "Show the stack: leader, services, what is wrong."),
    "services": ("inspect", "services", "List the services with endpoints, dependencies and order."),
    "health": ("inspect", "health", "Show the health of each service."),
    "explain": ("explain", "explain", "Say why a service does not run, and when it will."),
    "resolve": ("resolve", "resolve", "Show where a service is, by the HTTP API and by DNS."),
    "deps": ("deps", "deps", "Show or change the dependency graph."),
    "plan": ("plan", "plan", "Show what an operation would do, and in which order."),
    "hold": ("holds", "hold", "Keep citadel's hands off a service, a node or the stack."),
    "unhold": ("holds", "unhold", "Take a hold back."),
    "ops": ("ops", "ops", "List, show or cancel operations."),
    "events": ("events", "events", "Show what happened: who, what and why."),
    "notify": ("notify", "notify", "Try the receivers of notifications, and list what they were told."),
    "leader": ("leader", "leader", "Show who leads, or have another orchestrator lead."),
    "logs": ("logs", "logs", "Show the output of a service that runs on this machine."),
    "apply": ("stackfile", "apply", "Write a stack file into Consul."),
    "validate": ("stackfile", "validate", "Check a stack file."),
    "schema": ("stackfile", "schema", "Print the JSON Schema of the stack file."),
    "render": ("render", "render", "Print the Consul service definitions of a stack."),
    "doctor": ("doctor", "doctor", "Examine Consul, the token, the stack, its checks, ghosts and DNS."),
    "whoami": ("whoami", "whoami", "Show which Consul, node, stack and token are in use, and what it may do."),
    "config": ("config", "config", "Show each setting, its value, and where it came from."),
    "version": ("version", "version", "Show the versions of citadel and Consul."),
    "orchestrator": ("run", "orchestrator", "Run an orchestrator: stand by, and lead when it is its turn."),
    "agent": ("run", "agent", "Run the node agent of this machine."),
    "install": ("install", "install", "Install a node agent or an orchestrator on this machine."),
    "uninstall": ("uninstall", "uninstall", "Remove what install wrote; services run on."),
    "handback": ("handback", "handback", "Hand services back to their own managers, running as they are."),
    "drill": ("drill", "drill", "Test the full cycle on the running stack."),
    "dev": ("dev", "dev", "Run Consul, orchestrator, agents and a stack on this machine."),
    "completion": ("completion", "completion", "Print the shell completion script."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        found = COMMANDS.get(cmd_name)
        if found is None:
            return None
        command: click.Command = getattr(importlib.import_module(f"citadel_consul.cli.{found[0]}"), found[1])
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # here, because click would make of it a failure of the command
            raise click.exceptions.Exit(reader_gone()) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"{error.format_message()}{hint}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 the operation failed, 2 bad input, 3 Consul unreachable or no leader, 4 refused.",
)
def citadel() -> None:
    """Start, stop, watch and recover the services of a stack, over Consul.

    Example: citadel apply stack.yaml && citadel up && citadel status
    """


def main() -> None:
    """Run the command line and exit."""
    try:
        status = citadel.main(standalone_mode=False, prog_name="citadel", color=None if colours_wanted() else False)
        sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else DONE)
    except click.exceptions.Abort:
        sys.exit(INTERRUPTED)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(BAD_INPUT)
    except CitadelError as error:
        sys.exit(report(error))
    except BaseExceptionGroup as group:
        sys.exit(report_group(group))
    except BrokenPipeError:
        sys.exit(reader_gone())
