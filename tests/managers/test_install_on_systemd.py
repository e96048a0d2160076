"""citadel installed on a real systemd: the boot, the watchdog, the upgrade, and the way back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from installed_site import NODE, ROLES, STACK, UNITS, Site, build_wheel, differences, source_of
from machine_image import ROOT
from managed_machine import Machine

PREVIOUS = "4cc06da"
"""The last commit before citadel could install itself: what ran then was written by hand."""
SERVICES = ("store", "web", "worker")
HAND_WRITTEN = """
[Service]
EnvironmentFile=/etc/default/citadel
ExecStart=/opt/citadel/bin/citadel {role}
Restart=always
KillMode=process
[Install]
WantedBy=multi-user.target
"""
DROP_IN = "/etc/systemd/system/citadel-agent.service.d/test.conf"
PLANT = """
import signal, time
signal.signal(signal.SIGUSR2, lambda *_: time.sleep(3600))
"""
"""A call that blocks, planted into the agent: a signal's handler runs in Python's main thread, which is the loop's."""

NewMachine = Callable[[], Machine]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def site(new_machine: NewMachine, wheel: Path) -> Site:
    """A machine of the test's own with two units that run and are started at boot, and citadel's program."""
    return Site.make(new_machine(), wheel)


def moment_of_start(site: Site, unit: str) -> int:
    return int(site.machine.shown(unit, "ActiveEnterTimestampMonotonic"))


def test_after_a_reboot_everything_comes_back_in_order_without_a_hand(site: Site) -> None:
    before = site.lives()
    said = site.install()
    assert "citadel-agent.service: enabled and ready" in said
    site.apply()
    site.until_healthy()
    assert {name: site.lives()[name] for name in ("store", "web")} == before, "what ran is taken over as it runs"

    site.machine.reboot()
    site.until_healthy()
    assert site.machine.output("systemctl", "is-system-running") == "running"
    assert all(site.machine.shown(unit, "UnitFileState") == "disabled" for unit in UNITS)
    started = [moment_of_start(site, unit) for unit in ("citadel-agent.service", *UNITS)]
    assert started == sorted(started), "the agent, then store, then web"


def test_an_agent_that_is_not_root_may_manage_its_units_and_no_others(site: Site) -> None:
    site.install()
    as_agent = ["runuser", "-u", "citadel", "--", "systemctl", "--no-ask-password"]
    assert site.machine.run([*as_agent, "restart", "store.service"]).returncode == 0
    for words in (["restart", "dbus.service"], ["stop", "consul.service"], ["disable", "store.service"]):
        refused = site.machine.run([*as_agent, *words], check=False)
        assert refused.returncode != 0, words
        assert "authentication required" in refused.stderr, refused.stderr
    assert site.machine.output("ps", "-o", "user=", "-p", site.main_pid("citadel-agent.service")) == "citadel"


def test_the_units_are_hardened(site: Site) -> None:
    site.install()
    analyzed = {unit: site.machine.output("systemd-analyze", "security", "--no-pager", unit) for unit in ROLES}
    exposures = {unit: float(text.split("level for")[1].split()[1]) for unit, text in analyzed.items()}
    assert exposures["citadel-orchestrator.service"] <= 1.5, exposures
    assert exposures["citadel-agent.service"] <= 4.5, exposures


def test_the_journal_tells_of_a_service_with_its_fields(site: Site) -> None:
    site.install()
    site.apply()
    entries = [
        json.loads(line)
        for line in site.machine.journal("--output=json", "--unit=citadel-agent", "CITADEL_SERVICE=worker").splitlines()
    ]
    assert [entry["MESSAGE"] for entry in entries] == ["worker@n1 started", "worker@n1 is ready"]
    assert {(entry["SYSLOG_IDENTIFIER"], entry["CITADEL_NODE"], entry["PRIORITY"]) for entry in entries} == {
        ("citadel-agent", NODE, "6")
    }
    leader = site.machine.journal("--output=cat", "--unit=citadel-orchestrator")
    assert f"leading stack {STACK} with epoch" in leader
    assert "startup succeeded" in leader


@pytest.mark.parametrize("how", ["SIGSTOP", "a call that blocks"])
def test_an_agent_whose_loop_hangs_is_restarted_and_services_are_untouched(site: Site, how: str) -> None:
    site.install()
    site.apply()
    # Ten seconds in place of thirty, so that the test need not wait; still enough on a machine that is starved.
    site.machine.write(DROP_IN, "[Service]\nWatchdogSec=10s\nEnvironment=PYTHONPATH=/opt/plant\n")
    site.machine.write("/opt/plant/sitecustomize.py", PLANT)
    site.machine.daemon_reload()
    site.machine.run(["systemctl", "restart", "citadel-agent.service"])
    site.until_healthy()
    lives, agent = site.lives(), site.main_pid("citadel-agent.service")
    assert set(lives) == set(SERVICES)

    site.machine.run(["kill", "-STOP" if how == "SIGSTOP" else "-USR2", agent])
    site.machine.until(
        lambda: (
            site.main_pid("citadel-agent.service") not in (agent, "0")
            and site.machine.shown("citadel-agent.service", "ActiveState") == "active"
        ),
        "systemd has restarted the agent, and it is ready",
        120.0,
    )
    assert "Failed with result 'watchdog'" in site.machine.journal("--unit=citadel-agent.service")
    if how != "SIGSTOP":
        assert "sitecustomize.py" in site.machine.journal("--unit=citadel-agent.service"), "where it hung is on record"
    site.until_healthy()
    assert site.lives() == lives


def test_uninstalling_leaves_the_machine_as_it_was_and_services_running(site: Site) -> None:
    tree, before = site.tree(), site.lives()
    site.install()
    site.apply(("store", "web"))
    site.until_healthy(("store", "web"))
    assert differences(tree, site.tree())

    refused = site.machine.run([f"{site.program}", "uninstall"], check=False)
    assert refused.returncode == 4
    assert "store, web would be left alone: citadel handback store web first" in refused.stderr
    said = site.machine.run([site.program, "handback", "web"], env={"CITADEL_NODE": "elsewhere"}).stdout
    assert "web@n1, web.service: on n1, as root: citadel handback --unit web.service" in said
    assert "web.service: active, enabled at boot" in site.citadel("handback", "--unit", "web.service")
    assert "store@n1, store.service: active, enabled at boot" in site.citadel("handback", "--all")
    said = site.citadel("uninstall", "--purge")
    assert "no process of citadel's runs here" in said

    site.machine.run(["rm", "/srv/stack.yaml"])
    assert differences(tree, site.tree()) == {}
    assert site.lives() == before
    assert [site.machine.shown(unit, "UnitFileState") for unit in UNITS] == ["enabled", "enabled"]
    assert site.machine.run(["pgrep", "-f", f"{site.program} (agent|orchestrator)"], check=False).stdout == ""
    site.machine.reboot()
    assert [site.machine.shown(unit, "ActiveState") for unit in UNITS] == ["active", "active"], "systemd starts them"


def test_uninstalling_without_a_word_of_consul_takes_units_back_all_the_same(site: Site) -> None:
    site.install()
    site.apply(("store", "web"))
    before = site.lives()
    site.machine.run(["systemctl", "stop", "consul.service"])
    refused = site.machine.run([site.program, "uninstall"], check=False)
    assert refused.returncode == 4
    assert "Consul cannot say which services would be left alone" in refused.stderr
    said = site.citadel("uninstall", "--abandon")
    assert "store.service: active, enabled at boot; systemctl is its manager again" in said
    assert site.lives() == before


def test_an_upgrade_restarts_no_service(site: Site, tmp_path: Path) -> None:
    site.install()
    site.apply()
    site.until_healthy()
    lives, roles = site.lives(), [site.main_pid(role) for role in ROLES]
    assert set(lives) == set(SERVICES)
    site.put(build_wheel(ROOT, tmp_path, "0.1.1"))
    assert "nothing to change" not in site.install()
    assert all(site.main_pid(role) != pid for role, pid in zip(ROLES, roles, strict=True)), "the new one runs"
    assert "citadel 0.1.1" in site.citadel("version")
    site.until_healthy()
    assert site.lives() == lives
    assert site.install().count("nothing to change") == 2


def test_an_upgrade_from_before_there_was_an_installation_restarts_no_service(
    new_machine: NewMachine, wheel: Path, tmp_path: Path
) -> None:
    source = source_of(PREVIOUS, tmp_path / "previous")
    if source is None:
        pytest.skip(f"this checkout has no commit {PREVIOUS} (a shallow clone)")
    site = Site.make(new_machine(), build_wheel(source, tmp_path))
    site.machine.write("/etc/default/citadel", f"CITADEL_STACK={STACK}\nCITADEL_NODE={NODE}\n")
    for role in ("orchestrator", "agent"):
        site.machine.unit(f"citadel-{role}.service", HAND_WRITTEN.format(role=role))
    site.machine.daemon_reload()
    site.machine.run(["systemctl", "enable", "--now", *ROLES])
    site.apply(("worker",), needs=False)
    site.until_healthy(("worker",))
    worker = site.lives()["worker"]

    site.put(wheel)
    refused = site.machine.run([site.program, "install", "agent", "--user", "root"], check=False)
    assert "was not written by citadel install: move it away first" in refused.stderr
    site.machine.run(["systemctl", "disable", "--now", *ROLES])
    site.machine.run(["rm", *(f"/etc/systemd/system/{role}" for role in ROLES)])
    site.install("--user", "root")
    site.until_healthy(("worker",))
    assert site.lives()["worker"] == worker
