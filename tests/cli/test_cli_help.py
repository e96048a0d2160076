"""Help, completion, and how little is imported before anything is done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import click
import pytest
from click.shell_completion import ShellComplete
from command_line import THREE, CommandLine

from citadel_consul.cli import completing
from citadel_consul.cli.main import COMMANDS, citadel

SLOW = ("httpx", "pydantic", "consul", "jinja2", "fastapi", "uvicorn", "rich", "yaml", "asyncio", "tenacity")


Words = tuple[str, ...]


def every_command(group: click.Group = citadel, path: Words = ()) -> Iterator[tuple[Words, click.Command]]:
    """All commands and groups with the words that call them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"{path} {name} is listed and does not exist"
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


ALL = dict(every_command())
ANSWERING = [
    path
    for path, command in ALL.items()
    if not isinstance(command, click.Group) and path != ("completion",)  # a script for a shell has one form
]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_the_help_of_every_command_has_an_example_that_calls_it(path: tuple[str, ...]) -> None:
    command = ALL[path]
    epilog = command.epilog or ""
    assert epilog.startswith("Example: "), f"citadel {' '.join(path)} has no example"
    assert f"citadel {' '.join(path)}" in epilog
    text = command.get_help(click.Context(command, info_name="x"))
    assert "Example: " in text


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_says_what_it_does(path: tuple[str, ...]) -> None:
    command = ALL[path]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            undocumented = parameter.help is None and not isinstance(parameter.type, click.Choice | click.IntRange)
            assert not undocumented, f"{path}: {parameter.name}"


@pytest.mark.parametrize("path", ANSWERING, ids=" ".join)
def test_every_command_takes_an_output_format(path: tuple[str, ...]) -> None:
    option = next((p for p in ALL[path].params if p.name == "output"), None)
    assert option is not None, f"{path} has no -o"
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == ("table", "json", "yaml")


def test_the_list_of_commands_says_what_the_commands_say() -> None:
    for name, (_, _, text) in COMMANDS.items():
        assert text.endswith("."), name
        assert len(text) < 80, name


def test_the_list_of_commands_needs_nothing_slow() -> None:
    assert imported_by("--help").isdisjoint(SLOW)


@pytest.mark.parametrize("command", ["up", "status", "apply", "deps", "ops", "events"])
def test_the_help_of_a_command_needs_nothing_slow_but_asyncio(command: str) -> None:
    assert imported_by(command, "--help").isdisjoint(set(SLOW) - {"asyncio"})


def test_the_list_of_commands_is_there_at_once() -> None:
    """Under 200 ms on an idle machine; here as a ratio to a bare Python, which suffers from the same load."""
    bare = best_of(7, [sys.executable, "-c", "import click"])
    ours = best_of(7, [sys.executable, "-m", "citadel_consul", "--help"])
    assert ours < 3 * bare, f"{ours * 1000:.0f} ms against {bare * 1000:.0f} ms"


@pytest.mark.parametrize(
    ("words", "near"),
    [(("stauts",), "status"), (("aply", "x"), "apply"), (("ops", "lst"), "list"), (("deps", "ad", "a", "b"), "add")],
)
def test_a_misspelt_command_is_answered_with_the_one_that_was_meant(
    cli: CommandLine, words: tuple[str, ...], near: str
) -> None:
    result = cli(*words)
    assert result.status == 2
    assert f"Did you mean '{near}'?" in result.err
    assert result.err.count("Did you mean") == 1


def test_a_misspelt_option_is_answered_with_the_one_that_was_meant(cli: CommandLine) -> None:
    result = cli("down", "--cascad")
    assert result.status == 2
    assert "--cascade" in result.err


def test_bash_completes_commands() -> None:
    assert completed("citadel sta") == ["status"]
    assert completed("citadel ops ca") == ["cancel"]
    assert "--cascade" in completed("citadel down --ca")


@pytest.mark.consul
def test_the_services_of_the_stack_are_completed(cli: CommandLine) -> None:
    cli.apply(THREE)
    cli.monkeypatch.setattr(completing, "PATIENCE_SECONDS", 30.0)  # no offer rather than a late one: not here
    for words, incomplete, offered in (
        (["up"], "", ["base", "middle", "top"]),
        (["explain"], "mi", ["middle"]),
        (["deps", "add", "top"], "ba", ["base"]),
    ):
        found = ShellComplete(citadel, {}, "citadel", "_CITADEL_COMPLETE").get_completions(words, incomplete)
        assert sorted(item.value for item in found) == offered


def test_completion_without_a_consul_offers_nothing_and_complains_of_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    assert completed("citadel up ") == []


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete"), ("zsh", "compdef"), ("fish", "complete")])
def test_the_completion_script_of_each_shell_is_printed(cli: CommandLine, shell: str, word: str) -> None:
    script = cli.ok("completion", shell).out
    assert "_CITADEL_COMPLETE" in script
    assert word in script


def test_bash_takes_the_completion_script(cli: CommandLine) -> None:
    script = cli.ok("completion", "bash").out
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def imported_by(*words: str) -> set[str]:
    """The top-level packages that a call imports."""
    code = (
        "import sys\nfrom citadel_consul.cli.main import main\n"
        f"sys.argv = ['citadel', *{list(words)!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert "Usage:" in done.stdout
    return set(done.stderr.split())


def best_of(times: int, command: list[str]) -> float:
    """The shortest of several runs in seconds: the others were disturbed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    found = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, env=environ, check=True)
        found.append(time.perf_counter() - began)
    return min(found)


def completed(line: str) -> list[str]:
    """What bash would offer at the end of ``line``."""
    environ = {
        **os.environ,
        "_CITADEL_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    command = [sys.executable, "-c", "from citadel_consul.cli.main import main; main()"]
    done = subprocess.run(command, env=environ, text=True, capture_output=True, check=False)
    assert done.stderr == ""
    return [entry.partition(",")[2] for entry in done.stdout.split()]
