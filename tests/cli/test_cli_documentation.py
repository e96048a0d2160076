"""The pages about the command line say what is so, and their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import click
import pytest
from command_line import CommandLine
from test_cli_help import ALL

from citadel_consul.cli import failures
from citadel_consul.cli.main import COMMANDS
from citadel_consul.store.keys import Keys

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NAMES = ("cli", "architecture", "installation", "operations", "security")
PAGES = [ROOT / "README.md", *(DOCS / f"{name}.md" for name in NAMES)]


def text_of(name: str) -> str:
    return (DOCS / f"{name}.md").read_text()


@pytest.mark.parametrize(
    "path", [p for p, c in ALL.items() if not isinstance(c, click.Group) or p == ("deps",)], ids=" ".join
)
def test_the_page_names_every_command(path: tuple[str, ...]) -> None:
    assert f"citadel {' '.join(path)}" in text_of("cli")


@pytest.mark.parametrize("page", [*PAGES], ids=lambda page: page.name)
def test_every_command_that_a_page_names_is_one(page: Path) -> None:
    named = re.findall(r"(?:`|\$ )citadel ([a-z]+)(?: ([a-z-]+)\b)?", page.read_text())
    assert named or page.name == "security.md"
    for command, second in named:
        assert command in COMMANDS, f"citadel {command}"
        if isinstance(ALL[command,], click.Group) and second:
            assert (command, second) in ALL, f"citadel {command} {second}"


@pytest.mark.parametrize("page", [*PAGES], ids=lambda page: page.name)
def test_every_option_that_a_page_names_is_one(page: Path) -> None:
    known = {name for command in ALL.values() for p in command.params for name in (*p.opts, *p.secondary_opts)}
    known |= {"--help", "--once"}  # of every command; of the scripts in bin/
    for option in re.findall(r"`[^`]*?(--[a-z][a-z-]+)", page.read_text()):
        assert option in known, option


def test_the_page_lists_every_exit_status() -> None:
    listed = re.findall(r"^\| (\d) \| ", text_of("cli"), re.MULTILINE)
    assert [int(status) for status in listed] == [
        failures.DONE, failures.FAILED, failures.BAD_INPUT, failures.UNREACHABLE, failures.REFUSED,
    ]  # fmt: skip


def test_the_page_lists_every_key() -> None:
    page = text_of("architecture")
    keys = Keys("s")
    root = keys.root
    names = {name for name, value in vars(Keys).items() if isinstance(value, property)} - {"root"}
    for name in names:
        prefix = str(getattr(keys, name)).removeprefix(root)
        assert f"`{prefix}" in page, f"the key {prefix} is not in docs/architecture.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert links
    for link in links:
        assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_picture_is_well_formed_and_says_in_words_what_it_shows() -> None:
    root = ET.fromstring((DOCS / "architecture.svg").read_text())
    names = {child.tag.rpartition("}")[2] for child in root}
    assert {"title", "desc"} <= names


@pytest.mark.parametrize("script", ["quickstart", "test"])
def test_the_readme_names_the_two_commands(script: str) -> None:
    assert f"$ ./bin/{script} " in (ROOT / "README.md").read_text()
    assert (ROOT / "bin" / script).stat().st_mode & 0o111


@pytest.mark.consul
def test_the_hold_that_the_page_shows_is_one(cli: CommandLine) -> None:
    """The page writes it by hand, as an operator would."""
    value = re.search(r"kv put citadel/STACK/holds/service/postgresql '([^']+)'", text_of("operations"))
    assert value is not None
    cli.apply("services:\n  postgresql: {type: t, nodes: [n1], backend: {command: [x]}}\n")
    cli.put("holds/service/postgresql", value.group(1).encode())
    status = cli.ok("status").out
    assert "service postgresql  by alice: migration, until it is taken back" in status
    assert "holds/service/postgresql" not in status.partition("HELD")[0], "it can be read"


def test_the_completion_line_of_the_page_is_what_the_shell_needs(cli: CommandLine) -> None:
    line = re.search(r'^eval "\$\((citadel [a-z ]+)\)"', text_of("cli"), re.MULTILINE)
    assert line is not None
    script = cli.ok(*line.group(1).split()[1:]).out
    done = subprocess.run(["bash", "-c", script + "\ncomplete -p citadel"], capture_output=True, text=True, check=True)
    assert "citadel" in done.stdout
