"""What Consul's own UI shows of the quickstart stack, in a real Chromium. pytest's cache folder has the screenshots."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
from ai_platform import open_folder
from chromium import PACKAGES, browser
from debian_packages import NotToBeHad, unpacked
from selenium.webdriver.chrome.webdriver import WebDriver
from test_drill_quickstart import citadel_dev, copied

from citadel_consul.consul.binary import ConsulBinary

pytestmark = [pytest.mark.consul, pytest.mark.long]

WITHIN = 60.0
VICTIM = "event-collector"
OURS = {"citadel-agent", "citadel-orchestrator", "consul"}
SERVICES = {
    "api-gateway", "auth-service", "batch-processor", "dashboard", "embedding-service", "event-collector",
    "external-model-integrations", "metadata-service", "postgresql", "qdrant", "redis", "request-router",
}  # fmt: skip

_STATUSES = """
const status = row => ["critical", "warning", "passing"].find(word => row.querySelector("." + word)) || "none";
return Object.fromEntries(
  [...document.querySelectorAll(".consul-service-list li")]
    .filter(row => row.querySelector("a"))
    .map(row => [row.querySelector("a").textContent.trim(), status(row)]));
"""


@dataclass(frozen=True)
class Page:
    """The list of services in Consul's UI."""

    driver: WebDriver
    pictures: Path

    def open(self, consul: str) -> None:
        self.driver.get(f"http://{consul}/ui/dc1/services")

    def statuses(self) -> dict[str, str]:
        """Each service that is listed, with the status that its row shows."""
        shown: dict[str, str] = self.driver.execute_script(_STATUSES)
        return shown

    def until(self, condition: Callable[[dict[str, str]], bool], what: str) -> None:
        """Wait for what is shown, which follows Consul by itself, and keep a picture of it."""
        deadline = time.monotonic() + WITHIN
        while not condition(self.statuses()):
            if time.monotonic() > deadline:
                self.picture(f"in vain: {what}")
                raise AssertionError(f"not within {WITHIN} s: {what}; shown is {self.statuses()}")
            time.sleep(0.2)
        self.picture(what)

    def picture(self, name: str) -> None:
        file = self.pictures / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.png"
        assert self.driver.save_screenshot(str(file))
        assert file.stat().st_size > 10_000, "an empty picture is smaller"


@dataclass(frozen=True)
class CommandLine:
    """``citadel`` at the stack's Consul."""

    environ: Mapping[str, str]

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "citadel_consul", *words], env=dict(self.environ), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=WITHIN, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"citadel {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def pid(self, service: str) -> int:
        """The process of a service."""
        (found,) = orjson.loads(self("services", service, "-o", "json"))["services"]
        return int(found["instances"][0]["pid"])


@pytest.fixture
def pictures(request: pytest.FixtureRequest) -> Path:
    """Where the screenshots are kept after the run."""
    assert request.config.cache is not None
    return request.config.cache.mkdir("consul-ui")


def all_pass(shown: Mapping[str, str]) -> bool:
    return set(shown) == SERVICES | OURS and set(shown.values()) == {"passing"}


def test_the_ui_shows_all_services_passing_then_one_critical_then_all_again(
    consul_binary: ConsulBinary, role_environment: dict[str, str], tmp_path: Path, pictures: Path
) -> None:
    try:
        unpacked(*PACKAGES)
    except NotToBeHad as reason:
        pytest.skip(f"no Chromium: {reason}")
    environ = {**role_environment, "CITADEL_CONSUL_BINARY": str(consul_binary.path)}
    mark = os.environ["CITADEL_TEST_RUN"]
    with open_folder() as folder:
        file = copied(folder)
        file.write_text(file.read_text().replace("    env:\n", f"    env:\n      CITADEL_TEST_RUN: {mark}\n", 1))
        with citadel_dev(environ, file, folder / "data") as dev, browser(tmp_path) as driver:
            dev.until("Ctrl-C stops everything", 180.0)  # the last line of what it says once all are up
            (consul,) = re.findall(r"Consul UI  http://(\S+)/ui/", dev.text)
            citadel = CommandLine({**environ, "CONSUL_HTTP_ADDR": consul})
            page = Page(driver, pictures)
            page.open(consul)
            page.until(all_pass, "all services passing")
            citadel("hold", VICTIM, "--reason", "to be looked at")
            os.kill(citadel.pid(VICTIM), signal.SIGKILL)
            page.until(lambda shown: critical(shown) == {VICTIM} and set(shown) == SERVICES | OURS, "one critical")
            citadel("unhold", VICTIM)
            page.until(all_pass, "all services passing again")
            doctor = citadel("doctor", "--skip", "dns", "--strict")
            assert "nothing is wrong" in doctor


def critical(shown: Mapping[str, str]) -> set[str]:
    return {service for service, status in shown.items() if status == "critical"}
