"""The command line of ``bin/lab``."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from . import layout, lifecycle
from .errors import LabError, UsageError
from .machines import PAUSED, RUNNING, STOPPED, Machines, machines_of, noted_machines, ssh_command
from .status import look, table
from .topology import PROVIDERS, Node, Topology, load_topology, unit_name
from .trial import trial

PROVIDER_VARIABLE = "CITADEL_LAB_PROVIDER"
EPILOG = """\
examples:
  bin/lab up                                 five nodes, in containers
  bin/lab up --provider virtualbox           the same in virtual machines
  bin/lab status                             nodes, Consul members, units, leaders
  bin/lab ssh client-1 dig +short SRV redis.service.consul
  bin/lab kill server-1                      pull the plug;  bin/lab start server-1 boots it again
  bin/lab kill server-1 orchestrator         SIGKILL to a unit: consul, agent, orchestrator or any other
  bin/lab pause server-1 consul              SIGSTOP, until bin/lab resume server-1 consul
  bin/lab partition server-1 --from server-2 server-3
  bin/lab heal                               every cut, on every node
  bin/lab down                               remove the nodes;  --all: images, caches and a dockerd it started, too

A unit is named consul, agent, orchestrator, or as systemd names it. docs/lab.md explains the rest.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``bin/lab``; returns the exit status: 0 done, 1 failed, 2 wrong request."""
    options = _parser().parse_args(arguments)
    try:
        topology = load_topology(options.provider or _provider())
        with _alone(options.exclusive):
            status: int = options.action(Request(options, topology, machines_of(topology)))
    except UsageError as error:
        print(f"bin/lab: {error}", file=sys.stderr)
        return 2
    except LabError as error:
        print(f"bin/lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bin/lab: interrupted; the same command again goes on from here", file=sys.stderr)
        return 130
    return status


class Progress:
    """Tells what is being done, each line with the seconds since the start."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def __call__(self, line: str) -> None:
        print(f"[{self.seconds:5.1f} s] {line}", flush=True)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begin


def _provider() -> str:
    """The provider of the machines that exist, else the one that the environment names, else docker."""
    for note in noted_machines():
        return note.parent.name
    return os.environ.get(PROVIDER_VARIABLE) or "docker"


@contextmanager
def _alone(exclusive: bool) -> Iterator[None]:
    """Two runs of bin/lab must not make or remove the machines at once; the second is told."""
    if not exclusive:
        yield
        return
    layout.STATE.mkdir(parents=True, exist_ok=True)
    with (layout.STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError("another bin/lab is at work here; try again when it has ended") from error
        yield


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, and of which lab."""

    options: argparse.Namespace
    topology: Topology
    machines: Machines

    @property
    def node(self) -> Node:
        """The node that the command names. Raises UsageError if the lab has none of that name."""
        return self.topology.node(self.options.node)


Action = Callable[[Request], int]


def _up(request: Request) -> int:
    progress = Progress()
    lifecycle.up(request.topology, request.machines, progress)
    progress("the lab is up")
    print("\n".join(["", *lifecycle.summary(request.topology), f"It took {progress.seconds:.1f} s."]))
    return 0


def _image(request: Request) -> int:
    progress = Progress()
    lifecycle.prepare(request.topology, progress)
    progress(f"ready for: vagrant up --provider={request.topology.provider}")
    return 0


def _down(request: Request) -> int:
    options = request.options
    nodes = request.topology.pick(options.nodes)
    if options.all and options.nodes:
        raise UsageError("--all is the whole lab: name no nodes with it")
    lifecycle.down(request.topology, nodes, request.machines, Progress(), everything=options.all)
    return 0


def _status(request: Request) -> int:
    rows = look(request.topology, request.machines)
    as_json = request.options.output == "json"
    print(json.dumps([row.as_json() for row in rows], indent=2) if as_json else table(rows))
    return 0


def _ssh(request: Request) -> int:
    words = ssh_command(request.topology, request.node)
    command = request.options.command
    return subprocess.run([*words, *(["--", *command] if command else [])], check=False).returncode


def _on_machine(do: Callable[[Machines, Node], None], signal: str | None, wanted: str | None) -> Action:
    """A command for a whole node or, if it names a unit, for that unit by ``signal``.

    Nothing is done to a machine that is in the ``wanted`` state already.
    """

    def action(request: Request) -> int:
        if signal is not None and request.options.unit:
            # The main process alone: what a node agent started lives in the same control group.
            words = ["systemctl", "kill", "--kill-whom=main", f"--signal={signal}", unit_name(request.options.unit)]
            request.machines.execute(request.node, words)
        elif wanted is not None and request.machines.states()[request.node.name] == wanted:
            print(f"{request.node.name} is {wanted} already")
        else:
            do(request.machines, request.node)
        return 0

    return action


def _partition(request: Request) -> int:
    others = request.topology.others(request.node, request.options.from_nodes)
    request.machines.execute(request.node, ["lab-partition", "cut", *(other.address for other in others)])
    print(f"{request.node.name} is cut off from {', '.join(other.name for other in others)}")
    return 0


def _heal(request: Request) -> int:
    lifecycle.heal(request.topology.pick(request.options.nodes), request.machines)
    return 0


def _test(request: Request) -> int:
    return trial(request.topology, request.machines, Progress(), keep=request.options.keep, cuts=request.options.cuts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/lab",
        description="The multi-node test lab: three Consul servers, two clients, citadel on each.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--provider", choices=PROVIDERS, help=f"default: that of the running lab, ${PROVIDER_VARIABLE}, docker"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, action: Action, text: str, exclusive: bool = False) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument("--provider", choices=PROVIDERS, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        command.set_defaults(action=action, exclusive=exclusive)
        return command

    add("up", _up, "make or start the nodes, bring them up to date, wait until Consul is whole", exclusive=True)
    add("image", _image, "only prepare what vagrant up needs: payload, and the image of the docker provider", True)
    test = add("test", _test, "boot the lab, try it and its faults, print the times, remove it", exclusive=True)
    test.add_argument("--keep", action="store_true", help="leave the lab running")
    test.add_argument(
        "--cuts", type=int, default=1, metavar="N", help="how often to cut off the leader's node; default 1"
    )
    down = add("down", _down, "remove the nodes, or only those named", exclusive=True)
    down.add_argument("nodes", nargs="*", metavar="NODE")
    down.add_argument("--all", action="store_true", help="also images, caches, and the dockerd that the lab started")
    status = add("status", _status, "show each node: machine, Consul member, units, cuts, who leads")
    status.add_argument("-o", "--output", choices=("table", "json"), default="table")
    ssh = add("ssh", _ssh, "log in to a node, or run a command there")
    ssh.add_argument("node", metavar="NODE")
    ssh.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    _add_faults(add)
    return parser


def _add_faults(add: Callable[..., argparse.ArgumentParser]) -> None:
    faults: tuple[tuple[str, Callable[[Machines, Node], None], str | None, str | None, str], ...] = (
        ("kill", lambda m, node: m.cut_power(node), "SIGKILL", STOPPED, "pull a node's plug, or SIGKILL a unit"),
        ("start", lambda m, node: m.start(node), None, RUNNING, "boot a node that was killed"),
        ("pause", lambda m, node: m.pause(node), "SIGSTOP", PAUSED, "freeze a node, or SIGSTOP a unit"),
        ("resume", lambda m, node: m.resume(node), "SIGCONT", RUNNING, "let a frozen node or unit go on"),
        ("reboot", lambda m, node: m.reboot(node), None, None, "shut a node down in order, boot it again"),
    )
    for name, do, signal, wanted, text in faults:
        command = add(name, _on_machine(do, signal, wanted), text)
        command.add_argument("node", metavar="NODE")
        if signal is not None:
            command.add_argument("unit", nargs="?", metavar="UNIT")
    cut = add("partition", _partition, "drop all packets between a node and others of the lab")
    cut.add_argument("node", metavar="NODE")
    cut.add_argument("--from", dest="from_nodes", nargs="+", default=[], metavar="NODE", help="default: all others")
    add("heal", _heal, "undo the cuts of all nodes, or of those named").add_argument("nodes", nargs="*", metavar="NODE")
