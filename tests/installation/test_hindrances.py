"""What would make an installed role fail is said when it is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from citadel_consul.config.settings import Settings, load_settings
from citadel_consul.installation import account
from citadel_consul.installation.blueprint import Choices
from citadel_consul.installation.hindrances import hindrances

AGENT = Choices("agent", "/opt/citadel/bin/citadel", user="nobody")


@pytest.fixture
def token() -> Iterator[Path]:
    """A file that only its owner can read, on a way that everybody may go: pytest's folders are open to one user."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "token"
        path.write_text("x")
        path.chmod(0o600)
        yield path


def settings_with(token: Path | None = None) -> Settings:
    flags = {} if token is None else {"consul_token_file": str(token)}
    return load_settings(flags, {"ORCHESTRATOR_CONFIG_PATH": ""})


def test_a_token_that_the_account_cannot_read_is_named(token: Path) -> None:
    (found,) = hindrances(AGENT, settings_with(token))
    assert found.startswith(f"nobody cannot read {token} (consul.token_file): chgrp nobody")
    token.chmod(0o644)
    assert list(hindrances(AGENT, settings_with(token))) == []


def test_units_without_polkit_are_named(tmp_path: Path) -> None:
    choices = Choices("agent", AGENT.program, user="nobody", units=("a.service",))
    (found,) = hindrances(choices, settings_with(), polkit=tmp_path / "none")
    assert found.startswith("polkit is not installed")
    assert list(hindrances(choices, settings_with(), polkit=tmp_path)) == []


def test_containers_without_the_group_of_docker_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = Choices("agent", AGENT.program, user="nobody", docker=True)
    monkeypatch.setattr(account, "group_exists", lambda group: group != "docker")
    (found,) = hindrances(choices, settings_with())
    assert found.startswith("there is no group docker")


def test_nothing_stands_in_the_way_of_root(token: Path, tmp_path: Path) -> None:
    choices = Choices("agent", AGENT.program, user="root", units=("a.service",), docker=True)
    assert list(hindrances(choices, settings_with(token), polkit=tmp_path / "none")) == []
