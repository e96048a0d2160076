"""The alert rules that ship with citadel: over metrics that there are, good for Prometheus, and no false alarms."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from promtool import NoPromtoolError, find_promtool
from world import World, spec

from citadel_consul.api.exposition import Reading, expose
from citadel_consul.api.meter import Meter
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.operation import Kind
from citadel_consul.orchestrator.orchestrator import Orchestrator, OrchestratorConfig

RULES = Path(__file__).parents[2] / "consul.d" / "alerts" / "citadel.rules.yml"
SCENARIOS = Path(__file__).with_name("citadel.rules.test.yml")
DOCS = Path(__file__).parents[2] / "docs"


def _rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def promtool() -> Path:
    """Prometheus' checker of rules, fetched if this machine has none and can."""
    try:
        return find_promtool()
    except NoPromtoolError as error:
        pytest.skip(f"there is no promtool (Debian has it in the package prometheus): {error}")


async def test_every_metric_and_label_of_the_rules_is_exposed() -> None:
    world = World.of([spec("db")])
    world.request(Kind.STARTUP)
    world.settle()
    async with ConsulClient(parse_address("127.0.0.1:1")) as client:
        config = OrchestratorConfig("demo", "n1", "127.0.0.1:1", world.defaults)
        reading = Reading(world.snapshot(), led=True, seconds=0.1, now=world.now)
        text = expose(Meter(), Orchestrator(client, config), reading).decode()
    exposed = dict(re.findall(r"^(citadel_\w+)(?:\{(.*)\})? ", text, re.MULTILINE))
    for rule in _rules():
        for name, labels in re.findall(r"(citadel_\w+)(?:\{(.*?)\})?", rule["expr"]):
            assert name in exposed, f"{rule['alert']} asks for {name}"
            for label in re.findall(r"(\w+)=", labels):
                assert f"{label}=" in exposed[name], f"{rule['alert']} asks for {name}{{{labels}}}"


def test_every_rule_says_how_bad_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in _rules()]
    assert len(names) == len(set(names)) >= 10
    for rule in _rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_every_command_that_a_rule_names_exists() -> None:
    known = (DOCS / "cli.md").read_text()
    for rule in _rules():
        for command in re.findall(r"`(citadel \w+)", rule["annotations"]["description"]):
            assert command in known, rule["alert"]


def test_prometheus_accepts_the_rules(promtool: Path) -> None:
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(_rules())} rules found" in done.stdout


def test_the_right_alerts_fire(promtool: Path, tmp_path: Path) -> None:
    scenarios = tmp_path / "citadel.rules.test.yml"
    scenarios.write_text(SCENARIOS.read_text().replace("RULES", str(RULES)))
    done = subprocess.run([promtool, "test", "rules", scenarios], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
