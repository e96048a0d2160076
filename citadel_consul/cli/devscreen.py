"""What ``citadel dev`` shows: where things are once the stack is up, and why a service did not come up."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from citadel_consul.backends.logs import log_path, tail
from citadel_consul.cli.printing import coloured
from citadel_consul.core.operation import Operation, OperationState, StepState

LOG_LINES = 5
"""How many lines of a failed service's output are shown."""
CONSUL_ADDRESS = "127.0.0.1:8500"
"""Where citadel looks for Consul if it is not told."""


def screen(
    *,
    started: Operation | None,
    api: str,
    consul: str,
    ui: str | None,
    request: str | None,
    log: Path | None,
    data: Path,
    usual_data: bool,
) -> Iterator[str]:
    """The lines that tell where everything is.

    ``api`` and ``consul`` are ``host:port``; ``usual_data``: citadel finds the services' output without being told.
    """
    found = os.environ.get("CONSUL_HTTP_ADDR", CONSUL_ADDRESS) == consul == CONSUL_ADDRESS
    command = own_command() if found else f"CONSUL_HTTP_ADDR={consul} {own_command()}"
    place = "" if usual_data else f" --state-dir {data / 'state'}"
    rows = [
        ("status", f"{command} status"),
        ("API", f"http://{api}/docs"),
        ("", f"curl -s http://{api}/api/v1/orchestrator/status"),
        ("Consul UI", ui),
        ("try it", request),
        ("logs", f"{command} logs SERVICE -f{place}"),
        ("", str(log) if log is not None else None),
        ("data", str(data)),
    ]
    yield ""
    if started is not None:
        yield _headline(started)
        yield ""
    for name, text in rows:
        if text is not None:
            yield f"  {click.style(name.rjust(9), bold=True)}  {text}"
    yield ""
    yield "  Ctrl-C stops everything in order."
    yield ""


def failures(operation: Operation, state_dir: Path, stack: str) -> Iterator[str]:
    """For each service that failed: why, and the end of what it wrote."""
    for step in operation.steps:
        if step.state is not StepState.FAILED:
            continue
        path = log_path(state_dir, stack, step.node, step.service)
        yield coloured("failed", f"{step.service}: {step.detail}")
        for line in tail(path, LOG_LINES):
            yield f"    {line}"
        yield f"  its output: {path}"


def own_command() -> str:
    """How to call this citadel from the same shell: by its name if that finds it, else by its path."""
    program, found = Path(sys.executable).with_name("citadel"), shutil.which("citadel")
    if not program.exists() or (found is not None and program.samefile(found)):
        return "citadel"
    here = Path.cwd()
    return str(program.relative_to(here) if program.is_relative_to(here) else program)


def _headline(started: Operation) -> str:
    up = sum(step.state is StepState.SUCCEEDED for step in started.steps)
    if started.state is OperationState.SUCCEEDED:
        seconds = (started.ended_at or 0.0) - (started.started_at or 0.0)
        return coloured("succeeded", f"  {up} services are up, after {seconds:.1f} s")
    return coloured("failed", f"  {up} of {len(started.steps)} services are up: {started.detail}")
