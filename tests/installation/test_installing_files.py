"""install and uninstall on a root folder: what is written, kept, replaced and removed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml
from installed_root import InstalledRoot

from citadel_consul.config.settings import load_settings
from citadel_consul.errors import InvalidInput, Refused
from citadel_consul.installation import account

AGENT = ("install", "agent", "--stack", "shop", "--node", "n1", "--unit", "redis-server.service")
ORCHESTRATOR = ("install", "orchestrator", "--stack", "shop", "--node", "n1")
UNIT = "/etc/systemd/system/citadel-agent.service"
CONFIG = "/opt/citadel/config/orchestrator.yaml"
ENVIRONMENT = "/etc/citadel/citadel.env"
POLKIT = "/etc/polkit-1/rules.d/50-citadel.rules"
RECORD = "/etc/citadel/installed.json"

needs_systemctl = pytest.mark.skipif(shutil.which("systemctl") is None, reason="there is no systemctl here")


def test_a_dry_run_shows_every_file_and_writes_none(root: InstalledRoot) -> None:
    before = root.tree()
    shown = root.cite(*AGENT, "--dry-run")
    assert root.tree() == before
    root.cite(*AGENT)
    for place in (UNIT, CONFIG, ENVIRONMENT, POLKIT, "/etc/sysusers.d/citadel.conf"):
        assert root.read(place) in shown


def test_a_second_run_changes_nothing_and_says_so(root: InstalledRoot) -> None:
    root.cite(*AGENT)
    before, times = (
        root.tree(),
        {p: p.lstat().st_mtime_ns for p in root.folder.rglob("*") if p.name != "installed.json"},
    )
    said = root.cite(*AGENT)
    assert "nothing to change" in said
    assert root.tree() == before
    assert {p: p.lstat().st_mtime_ns for p in root.folder.rglob("*") if p.name != "installed.json"} == times


def test_a_run_without_options_keeps_what_was_chosen(root: InstalledRoot) -> None:
    root.cite(*AGENT, "--docker")
    before = root.tree()
    assert "nothing to change" in root.cite("install", "agent")
    assert root.tree() == before


@pytest.mark.parametrize("roles", [(AGENT,), (ORCHESTRATOR,), (AGENT, ORCHESTRATOR)], ids=["agent", "orch", "both"])
def test_uninstalling_leaves_the_tree_as_it_was(root: InstalledRoot, roles: tuple[tuple[str, ...], ...]) -> None:
    before = root.tree()
    for words in roles:
        root.cite(*words)
    assert root.tree() != before
    root.cite("uninstall")
    assert root.tree() == before


def test_uninstalling_one_role_leaves_the_other_whole(root: InstalledRoot) -> None:
    root.cite(*ORCHESTRATOR)
    before = {name: entry for name, entry in root.tree().items() if name != RECORD.lstrip("/")}
    root.cite(*AGENT)
    root.cite("uninstall", "agent")
    assert {name: entry for name, entry in root.tree().items() if name != RECORD.lstrip("/")} == before
    assert list(json.loads(root.read(RECORD))["roles"]) == ["orchestrator"]


def test_a_file_that_was_edited_is_kept_and_said(root: InstalledRoot) -> None:
    root.cite(*AGENT)
    root.path(CONFIG).write_text("stack: other\n")
    said = root.cite(*AGENT)
    assert f"{CONFIG}: kept: it was edited by hand" in said
    assert root.read(CONFIG) == "stack: other\n"
    said = root.cite("uninstall")
    assert f"{CONFIG}: kept: edited by hand" in said
    assert root.read(CONFIG) == "stack: other\n"


def test_an_edited_file_is_replaced_by_force_and_removed_by_purge(root: InstalledRoot) -> None:
    before = root.tree()
    root.cite(*AGENT)
    written = root.read(UNIT)
    root.path(UNIT).write_text("[Service]\n")
    root.cite(*AGENT, "--force")
    assert root.read(UNIT) == written
    root.path(UNIT).write_text("[Service]\n")
    root.cite("uninstall", "--purge")
    assert root.tree() == before


def test_an_upgrade_replaces_what_changed_and_removes_what_is_not_needed(root: InstalledRoot) -> None:
    root.cite(*AGENT)
    record = json.loads(root.read(RECORD))
    old = root.read(UNIT).replace("WatchdogSec=30s", "WatchdogSec=1h")
    root.path(UNIT).write_text(old)
    record["files"][UNIT]["sha256"] = hashlib.sha256(old.encode()).hexdigest()
    record["roles"]["agent"]["version"] = "0.0.1"
    root.path(RECORD).write_text(json.dumps(record))
    said = root.cite("install", "agent")
    assert f"{UNIT}: replaced" in said
    assert "WatchdogSec=30s" in root.read(UNIT)
    assert json.loads(root.read(RECORD))["roles"]["agent"]["version"] != "0.0.1"


def test_the_units_are_said_anew_and_the_rule_follows(root: InstalledRoot) -> None:
    root.cite(*AGENT)
    root.cite("install", "agent", "--unit", "nginx.service")
    assert "nginx" in root.read(POLKIT)
    assert "redis" not in root.read(POLKIT)


def test_a_unit_of_somebody_else_is_not_written_over(root: InstalledRoot) -> None:
    root.path(UNIT).write_text("[Service]\nExecStart=/opt/other\n")
    before = root.tree()
    with pytest.raises(Refused, match=r"citadel-agent\.service is there and was not written by citadel install"):
        root.cite(*AGENT)
    assert root.tree() == before


def test_a_configuration_that_was_there_before_stays_after_uninstalling(root: InstalledRoot) -> None:
    root.path(CONFIG).parent.mkdir(parents=True)
    root.path(CONFIG).write_text("stack: shop\nnode: n7\n")
    before = root.tree()
    assert f"{CONFIG}: kept: it was there before" in root.cite(*AGENT)
    root.cite("uninstall")
    assert root.tree() == before


def test_an_interrupted_installation_is_finished(root: InstalledRoot) -> None:
    root.cite(*AGENT)
    whole = root.tree()
    root.path(RECORD).unlink()
    root.path(POLKIT).unlink()
    root.cite(*AGENT)
    assert {n: e for n, e in root.tree().items() if "installed" not in n} == {
        n: e for n, e in whole.items() if "installed" not in n
    }


def test_secrets_are_readable_by_the_group_alone_and_settings_by_all(root: InstalledRoot) -> None:
    before = os.umask(0o077)
    try:
        root.cite(*AGENT)
    finally:
        os.umask(before)
    modes = {place: root.path(place).stat().st_mode & 0o777 for place in (ENVIRONMENT, CONFIG, UNIT, RECORD)}
    assert modes == {ENVIRONMENT: 0o640, CONFIG: 0o644, UNIT: 0o644, RECORD: 0o600}
    assert root.path("/opt/citadel/config").stat().st_mode & 0o777 == 0o755


def test_the_token_of_who_installs_is_not_written_down(root: InstalledRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "8a3f-secret")
    root.cite(*AGENT)
    assert not [name for name, entry in root.tree().items() if "8a3f-secret" in entry[2]]


def test_the_settings_in_force_are_written_so_that_they_read_the_same(
    root: InstalledRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RECOVERY_ATTEMPTS", "7")
    monkeypatch.setenv("ORCHESTRATOR_METRICS_ENABLED", "false")
    monkeypatch.setenv("ORCHESTRATOR_STARTUP_TIMEOUT", "90s")
    root.cite(*ORCHESTRATOR, "--api-bind", "127.0.0.1:8010", "--consul-address", "https://127.0.0.1:8501")
    document = yaml.safe_load(root.read(CONFIG))
    assert document["recovery"] == {"attempts": 7}
    assert document["metrics"] == {"enabled": False}
    settings = load_settings({}, {}, root.path(CONFIG))
    assert (settings.stack, settings.node, str(settings.api.bind)) == ("shop", "n1", "127.0.0.1:8010")
    assert settings.consul.address == "https://127.0.0.1:8501"
    assert settings.startup_timeout_seconds == 90.0
    assert settings.state_dir == Path("/var/lib/citadel")


def test_the_second_role_adds_its_settings_to_those_of_the_first(root: InstalledRoot) -> None:
    root.cite(*AGENT, "--node-address", "10.0.0.1")
    root.cite("install", "orchestrator", "--api-bind", "127.0.0.1:8010")
    settings = load_settings({}, {}, root.path(CONFIG))
    assert (settings.node_address, settings.stack, str(settings.api.bind)) == ("10.0.0.1", "shop", "127.0.0.1:8010")


@needs_systemctl
def test_the_unit_is_started_at_boot(root: InstalledRoot) -> None:
    root.cite(*AGENT)
    assert root.path("/etc/systemd/system/multi-user.target.wants/citadel-agent.service").is_symlink()


@needs_systemctl
def test_what_systemd_started_at_boot_is_taken_over_and_given_back(root: InstalledRoot) -> None:
    unit = "[Unit]\nDescription=redis\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
    root.path("/usr/lib/systemd/system/redis-server.service").write_text(unit)
    subprocess.run(["systemctl", f"--root={root.folder}", "enable", "-q", "redis-server.service"], check=True)
    before, link = root.tree(), root.path("/etc/systemd/system/multi-user.target.wants/redis-server.service")
    assert link.is_symlink()
    assert "redis-server.service: not started at boot by systemd any more" in root.cite(*AGENT)
    assert not link.is_symlink()
    root.cite(*AGENT)  # the second look finds it disabled, and still knows that it was enabled
    root.cite("uninstall")
    assert root.tree() == before


@needs_systemctl
def test_a_unit_that_was_not_started_at_boot_is_not_afterwards(root: InstalledRoot) -> None:
    unit = "[Unit]\nDescription=redis\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
    root.path("/usr/lib/systemd/system/redis-server.service").write_text(unit)
    before = root.tree()
    root.cite(*AGENT)
    root.cite("uninstall")
    assert root.tree() == before


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
@pytest.mark.parametrize("words", [AGENT, (*AGENT, "--docker"), (*AGENT, "--user", "root"), ORCHESTRATOR])
def test_systemd_finds_nothing_wrong_with_the_units(root: InstalledRoot, words: tuple[str, ...]) -> None:
    root.cite(*words)
    unit = root.path(f"/etc/systemd/system/citadel-{words[1]}.service")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert not [line for line in done.stderr.splitlines() if unit.name in line], done.stderr


def test_an_agent_of_root_needs_neither_account_nor_rule(root: InstalledRoot) -> None:
    root.cite(*AGENT, "--user", "root")
    assert "User=" not in root.read(UNIT)
    assert not root.path(POLKIT).exists()
    assert not root.path("/etc/sysusers.d/citadel.conf").exists()


def test_both_roles_run_as_one_user(root: InstalledRoot) -> None:
    root.cite(*AGENT)
    with pytest.raises(Refused, match="say --user citadel"):
        root.cite(*ORCHESTRATOR, "--user", "other")


@pytest.mark.parametrize("unit", ["redis server.service", "*.service", "redis", "x\n.service", "../x.service"])
def test_what_is_no_name_of_a_unit_is_refused(root: InstalledRoot, unit: str) -> None:
    before = root.tree()
    with pytest.raises(InvalidInput, match="no name of a unit"):
        root.cite("install", "agent", "--unit", unit)
    assert root.tree() == before


def test_the_rule_allows_the_units_and_no_others(root: InstalledRoot) -> None:
    root.cite(*AGENT, "--unit", "embedding@*.service")
    allowed = [re.compile(json.loads(text)) for text in re.findall(r"new RegExp\((.*)\)", root.read(POLKIT))]

    def may(unit: str) -> bool:
        return any(pattern.search(unit) for pattern in allowed)

    assert may("redis-server.service")
    assert may("embedding@2.service")
    assert not may("redis-serverXservice")
    assert not may("ssh.service")
    assert not may("xredis-server.service")


def test_the_units_of_a_stack_file_are_those_of_this_node(root: InstalledRoot, tmp_path: Path) -> None:
    stack = tmp_path / "stack.yaml"
    stack.write_text(
        "version: 1\nstack: shop\nservices:\n"
        "  redis: {type: cache, nodes: [n1], backend: {kind: systemd, unit: redis-server.service}}\n"
        "  embed: {type: ai, nodes: [n1], backend: {kind: systemd, unit: 'embed@{{ node }}.service'}}\n"
        "  other: {type: ai, nodes: [n2], backend: {kind: systemd, unit: other.service}}\n"
    )
    root.cite("install", "agent", "--node", "n1", "--stack-file", str(stack))
    assert json.loads(root.read(RECORD))["roles"]["agent"]["units"] == ["embed@n1.service", "redis-server.service"]


def test_nothing_is_uninstalled_where_nothing_is_installed(root: InstalledRoot) -> None:
    before = root.tree()
    assert "not installed here: nothing to remove" in root.cite("uninstall")
    assert root.tree() == before


def test_a_record_that_cannot_be_read_is_said_and_nothing_is_touched(root: InstalledRoot) -> None:
    root.cite(*AGENT)
    root.path(RECORD).write_text("{}")
    before = root.tree()
    with pytest.raises(InvalidInput, match="is no record of this version"):
        root.cite("uninstall")
    assert root.tree() == before


def test_a_dry_run_of_uninstall_changes_nothing(root: InstalledRoot) -> None:
    root.cite(*AGENT)
    before = root.tree()
    assert f"{UNIT}: would be removed" in root.cite("uninstall", "--dry-run")
    assert root.tree() == before


@pytest.mark.parametrize(
    ("mode", "folder_mode", "readable"),
    [(0o644, 0o755, True), (0o640, 0o755, False), (0o600, 0o755, False), (0o644, 0o750, False), (0o644, 0o711, True)],
)
def test_what_an_account_cannot_read_is_found_by_the_modes_on_the_way(
    mode: int, folder_mode: int, readable: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are open to one user alone
        secret = Path(folder) / "token"
        secret.write_text("x")
        secret.chmod(mode)
        Path(folder).chmod(folder_mode)
        assert account.can_read("nobody", secret) is readable
        assert account.can_read("root", secret)
