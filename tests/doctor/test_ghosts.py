"""Which registrations are ghosts, and which only look like it."""

from __future__ import annotations

import pytest

from citadel_consul.core.ghosts import Registered, Residents, find_ghosts
from citadel_consul.core.lifecycle import Observed, Phase
from citadel_consul.core.model import Instance

HERE = "consul-1"
REDIS = Instance("redis", "n1")
REGISTERED = Registered("main.redis.n1", "main", "n1", "redis")


def seen(phase: Phase) -> Observed:
    return Observed(generation=1, phase=phase, since=0.0, pid=4711)


def ghosts(registered: Registered, residents: Residents | None) -> list[str]:
    stacks = {} if residents is None else {"main": residents}
    return [ghost.why for ghost in find_ghosts((registered,), stacks, HERE)]


@pytest.mark.parametrize("phase", list(Phase))
def test_what_a_living_agent_of_this_node_answers_for_is_no_ghost(phase: Phase) -> None:
    assert ghosts(REGISTERED, Residents(True, {"n1": HERE}, {REDIS: seen(phase)})) == []


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.READY, Phase.STOPPING])
def test_what_runs_on_after_its_agent_died_is_no_ghost(phase: Phase) -> None:
    assert ghosts(REGISTERED, Residents(True, {}, {REDIS: seen(phase)})) == []


def test_what_ran_until_its_agent_died_and_then_ended_is_a_ghost() -> None:
    (why,) = ghosts(REGISTERED, Residents(True, {}, {REDIS: seen(Phase.READY)}, frozenset({REDIS})))
    assert "process 4711 is gone" in why


@pytest.mark.parametrize("phase", [Phase.STOPPED, Phase.EXITED, Phase.COMPLETED, Phase.FAILED])
def test_what_did_not_run_when_its_agent_died_is_a_ghost(phase: Phase) -> None:
    (why,) = ghosts(REGISTERED, Residents(True, {}, {REDIS: seen(phase)}))
    assert f"last report says {phase}" in why


def test_what_nobody_ever_reported_is_a_ghost() -> None:
    (why,) = ghosts(REGISTERED, Residents(True, {}, {}))
    assert "none has ever reported" in why


def test_a_registration_of_a_stack_that_is_gone_is_a_ghost() -> None:
    for residents in (None, Residents(known=False)):
        (why,) = ghosts(REGISTERED, residents)
        assert "there is no stack 'main'" in why


def test_a_registration_on_the_consul_agent_that_its_node_agent_left_is_a_ghost() -> None:
    (why,) = ghosts(REGISTERED, Residents(True, {"n1": "consul-2"}, {REDIS: seen(Phase.READY)}))
    assert "consul-2" in why


@pytest.mark.parametrize("role", ["agent", "orchestrator"])
def test_a_role_is_a_ghost_when_it_gives_no_sign_of_life(role: str) -> None:
    alive = Registered(f"citadel-{role}.main.n1", "main", "", f"citadel-{role}", role, passing=True)
    dead = Registered(f"citadel-{role}.main.n1", "main", "", f"citadel-{role}", role, passing=False)
    assert ghosts(alive, None) == []
    (why,) = ghosts(dead, None)
    assert "no sign of life" in why
