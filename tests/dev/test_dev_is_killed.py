"""kill -9 of ``citadel dev`` at any step of a startup: the next one finishes it, and nothing is done twice."""

from __future__ import annotations

import signal

import pytest
from checker import violations
from dev_process import Site, wait_until

from citadel_consul.core.model import Edge

pytestmark = [pytest.mark.consul, pytest.mark.slow]

EDGES = [Edge("left", "base"), Edge("right", "base"), Edge("top", "left"), Edge("top", "right")]
STEPS = ["Consul", "… start base", "✔ start base", "… start left", "… start top", "are up"]


def _assert_finished_without_a_second_life(site: Site) -> None:
    """Start again, see it through, and take it down: every service had one life, and all in order."""
    before = site.running()
    second = site.dev()
    second.until("4 services are up")
    for service in site.services:
        lives = site.lives(service)
        assert len(lives) == 1, f"{service} was started {len(lives)} times\n{second.text}"
        assert site.running()[service] == lives
        assert before[service] in ([], lives), f"{service} was stopped"
    assert violations(site.chronicle(), EDGES) == []
    second.signal(signal.SIGINT)
    assert second.end() == 0, second.text
    assert not any(site.running().values())
    assert site.consul_pid() is None
    assert violations(site.chronicle(), EDGES) == []


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
def test_dev_that_is_killed_is_finished_by_the_next(site: Site, step: str) -> None:
    site.diamond()
    first = site.dev()
    first.until(step)
    first.kill()
    assert site.consul_pid() is not None, "Consul has to survive its starter"
    _assert_finished_without_a_second_life(site)


def test_dev_that_is_killed_while_consul_starts_leaves_no_second_consul(site: Site) -> None:
    site.diamond()
    first = site.dev()
    wait_until(lambda: (site.data_dir / "consul" / "consul.json").exists(), "the configuration of Consul")
    first.kill()
    _assert_finished_without_a_second_life(site)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("… start base", marks=pytest.mark.long),
        "✔ start left",
        pytest.param("are up", marks=pytest.mark.long),
    ],
)
def test_dev_and_consul_that_are_killed_together_are_finished_by_the_next(site: Site, step: str) -> None:
    site.diamond()
    first = site.dev()
    first.until(step)
    first.kill()
    site.kill_consul()
    _assert_finished_without_a_second_life(site)


def test_consul_alone_that_is_killed_comes_back_and_no_service_stops(site: Site) -> None:
    site.diamond()
    dev = site.dev()
    dev.until("… start left")
    killed = site.consul_pid()
    site.kill_consul()
    dev.until("4 services are up")
    assert site.consul_pid() not in (None, killed)
    assert [len(site.lives(service)) for service in site.services] == [1, 1, 1, 1]
    dev.signal(signal.SIGTERM)
    assert dev.end() == 0, dev.text
    assert not any(site.running().values())
