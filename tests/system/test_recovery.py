"""Recovery with real processes and a real Consul: the cause is restarted, once, and nothing else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from consul_proxy import ConsulProxy, Trap
from moody import TIMEOUT_SECONDS, Ward
from real_world import World

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "notification"))

from receiver import Receiver

from citadel_consul.core.answers.problems import stack_problems
from citadel_consul.core.health import Status, service_status
from citadel_consul.core.incident import STACK, IncidentState
from citadel_consul.core.model import Edge, OnRecovery, ProcessBackend
from citadel_consul.core.operation import Kind, OperationState

pytestmark = [pytest.mark.consul, pytest.mark.long]

DEPENDENTS = tuple(f"d{number:02d}" for number in range(12))
FIFTY = tuple(f"x{number:02d}" for number in range(50))
TEN = tuple(f"s{number}" for number in range(10))
SIX = TEN[:6]


@pytest.fixture
def ward(world: World) -> Ward:
    return Ward(world)


@pytest.fixture
def pager() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


def paging(ward: Ward, pager: Receiver, **fields: Any) -> dict[str, str]:
    """The environment of an orchestrator that pages ``pager``, whose entry in the configuration has ``fields``."""
    path = ward.world.folder / "orchestrator.yaml"
    receiver = {"name": "pager", "webhook": pager.url, **fields}
    path.write_text(yaml.safe_dump({"notification": {"receivers": [receiver]}}))
    return {"ORCHESTRATOR_CONFIG_PATH": str(path)}


def assert_one_pair(ward: Ward, pager: Receiver, service: str, affected: tuple[str, ...]) -> None:
    """People were told once when it began, with whom it takes along, and once when it was over; and of nothing else."""
    ward.world.until(lambda: len(pager.requests) >= 2, 90.0, "the end to be told")
    ward.stays(lambda: len(pager.requests) == 2, 2.0, f"no third notice: {[n['title'] for n in pager.notices]}")
    told = [(notice["service"], notice["transition"], notice["incident"]["affected"]) for notice in pager.notices]
    assert told == [(service, "opened", list(affected)), (service, "closed", list(affected))]
    assert all(name in pager.notices[0]["blast_radius"] for name in affected)


def apply_database(ward: Ward, on_recovery: OnRecovery = OnRecovery.NOTIFY) -> None:
    """A database and twelve dependents whose health follows it."""
    edges = [Edge(name, "db", on_recovery=on_recovery) for name in DEPENDENTS]
    ward.world.apply([ward.spec("db"), *(ward.spec(name) for name in DEPENDENTS)], edges)
    ward.mood(f"follow {ward.world.ports['db']}", *DEPENDENTS)


def assert_only_the_database_was_restarted(ward: Ward) -> None:
    ward.until_healthy("db", *DEPENDENTS)
    ward.until_incident("db", IncidentState.CLOSED)
    assert ward.lives("db", *DEPENDENTS) == {"db": 2, **dict.fromkeys(DEPENDENTS, 1)}, ward.world.logs()
    assert set(ward.world.snapshot().incidents) == {"db"}
    opened = ward.events("incident-opened")
    assert [event.service for event in opened] == ["db"]
    assert all(name in opened[0].message for name in DEPENDENTS)
    assert [event.service for event in ward.events("incident-closed")] == ["db"]


def test_a_killed_service_runs_again_and_its_dependents_are_told(ward: Ward) -> None:
    ward.world.apply([ward.spec("db"), ward.spec("api")], [("api", "db")])
    ward.begin()
    ward.kill("db")
    ward.world.until(lambda: ward.lives("db") == {"db": 2}, 60.0, "a second life")
    ward.until_incident("db", IncidentState.CLOSED)
    assert ward.lives("api") == {"api": 1}
    assert [event.message for event in ward.events("dependency-recovered")] == ["api@n1 was told that db came back"]
    (operation,) = ward.automatic()
    assert (operation.kind, operation.state) == (Kind.RECOVER, OperationState.SUCCEEDED)
    assert operation.options.reason == "process_exit"


def test_a_database_with_twelve_dependents_is_the_only_thing_restarted(ward: Ward, pager: Receiver) -> None:
    apply_database(ward)
    ward.begin(**paging(ward, pager))
    ward.kill("db")
    assert_only_the_database_was_restarted(ward)
    assert_one_pair(ward, pager, "db", DEPENDENTS)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("nth", [1, 2])
def test_so_it_is_when_the_leader_dies_in_the_middle(ward: Ward, pager: Receiver, nth: int, before: bool) -> None:
    apply_database(ward)
    settings = paging(ward, pager)
    with ConsulProxy(ward.world.consul) as proxy:
        first = ward.world.orchestrator("o1", consul=proxy.address, **settings)
        ward.world.until_led()
        ward.world.agent()
        ward.up()
        ward.world.orchestrator("o2", **settings)
        proxy.writes = 0
        trap = proxy.trap = Trap(nth, before, first.popen.kill)
        ward.kill("db")
        ward.world.until(lambda: trap.sprung, 60.0, "the trap")
        first.kill()
        assert_only_the_database_was_restarted(ward)
        assert_one_pair(ward, pager, "db", DEPENDENTS)


def test_dependents_restart_once_if_their_edge_asks_for_it(ward: Ward, pager: Receiver) -> None:
    apply_database(ward, OnRecovery.RESTART)
    ward.begin(**paging(ward, pager))
    ward.kill("db")
    ward.until_incident("db", IncidentState.CLOSED)
    assert ward.lives("db", *DEPENDENTS) == dict.fromkeys(("db", *DEPENDENTS), 2)
    assert set(ward.world.snapshot().incidents) == {"db"}
    assert_one_pair(ward, pager, "db", DEPENDENTS)


def test_a_dependent_that_is_killed_just_before_its_database_makes_no_page_of_its_own(
    ward: Ward, pager: Receiver
) -> None:
    apply_database(ward)
    ward.begin(**paging(ward, pager), CITADEL_NOTIFICATION_DELAY="5s")  # however late the report is on a busy machine
    ward.kill("d00")
    ward.world.until(lambda: ward.incident("d00") is not None, 60.0, "an incident of the dependent")
    ward.kill("db")
    ward.until_incident("db", IncidentState.CLOSED)
    ward.until_incident("d00", IncidentState.CLOSED)
    db, d00 = ward.incident("db"), ward.incident("d00")
    assert db is not None
    assert d00 is not None
    assert d00.part_of == db.id
    assert ward.lives("db", *DEPENDENTS[1:]) == {"db": 2, **dict.fromkeys(DEPENDENTS[1:], 1)}
    assert_one_pair(ward, pager, "db", DEPENDENTS)


def test_dependents_reload_if_their_edge_asks_for_it(ward: Ward) -> None:
    deaf = ward.spec("deaf")
    assert isinstance(deaf.backend, ProcessBackend)
    deaf = ward.spec("deaf", backend=ProcessBackend(deaf.backend.command, env=deaf.backend.env))
    edges = [Edge(name, "db", on_recovery=OnRecovery.RELOAD) for name in ("api", "deaf")]
    ward.world.apply([ward.spec("db"), ward.spec("api"), deaf], edges)
    ward.begin()
    ward.kill("db")
    ward.world.until(lambda: ward.reloads("api") == 1, 60.0, "a reload")
    ward.until_incident("db", IncidentState.CLOSED)
    assert ward.lives("db", "api", "deaf") == {"db": 2, "api": 1, "deaf": 1}
    (failed,) = [step for step in ward.world.operation(ward.automatic()[0].id).steps if step.state == "failed"]  # type: ignore[union-attr]
    assert (failed.service, failed.action) == ("deaf", "reload")
    assert "reload_signal" in failed.detail


def test_what_died_with_its_database_is_started_again_once(ward: Ward) -> None:
    ward.world.apply([ward.spec(n) for n in ("db", "api", "web", "x", "y")], [("api", "db"), ("web", "api")])
    ward.begin()
    ward.kill("db", end=("web", "api"))  # these end as programs do that have lost what they need, and a moment earlier
    ward.until_incident("db", IncidentState.CLOSED)
    ward.until_healthy("db", "api", "web")
    assert ward.lives("db", "api", "web") == {"db": 2, "api": 2, "web": 2}
    # On a starved machine the reports can be so far apart that one gets an incident, as a part of that of the database.
    assert [incident.service for incident in ward.world.snapshot().incidents.values() if not incident.part_of] == ["db"]


def test_i5_a_crash_looping_service_is_given_up_as_its_policy_says(ward: Ward, pager: Receiver) -> None:
    """Who wants to be woken only for what calls for action is woken once."""
    broken = ProcessBackend(("/bin/sh", "-c", f"echo 0 $$ 0 >> {ward.world.folder}/bad.lives; exit 3"))
    ward.world.apply([ward.spec("bad", attempts=4, backend=broken), ward.spec("good")])
    ward.world.orchestrator(**paging(ward, pager, when=["gave_up", "quarantined", "closed"]))
    ward.world.agent()
    assert ward.world.operate(Kind.STARTUP).state is OperationState.FAILED
    incident = ward.until_incident("bad", IncidentState.GAVE_UP)
    assert (incident.attempts, len(incident.operations)) == (4, 4)
    ward.stays(lambda: ward.lives("bad", "good") == {"bad": 5, "good": 1}, 3.0, "left alone")
    assert len(ward.events("gave-up")) == 1
    assert [(notice["service"], notice["transition"]) for notice in pager.notices] == [("bad", "gave_up")]
    assert pager.notices[0]["calls_for_action"]
    assert service_status(ward.world.snapshot(), "bad", 0.0) is Status.FAILED
    assert "citadel recover bad" in stack_problems(ward.world.snapshot(), led=True)[0].message
    ward.world.apply([ward.spec("bad", attempts=4), ward.spec("good")])
    assert ward.world.operate(Kind.RECOVER, "bad").state is OperationState.SUCCEEDED
    ward.world.until(lambda: (ward.incident("bad") or incident).attempts == 0, what="a budget that is whole again")


def test_a_hung_service_is_restarted_and_a_degraded_one_is_not(ward: Ward) -> None:
    ward.world.apply([ward.spec("hung"), ward.spec("degraded"), ward.spec("well")])
    ward.begin()
    ward.mood("warning", "degraded")
    ward.mood("hang", "hung")
    ward.world.until(lambda: ward.incident("hung") is not None, 60.0, "a confirmed failure")
    ward.mood("well", "hung")
    ward.until_incident("hung", IncidentState.CLOSED)
    snapshot = ward.world.snapshot()
    assert ward.lives("hung", "degraded", "well") == {"hung": 2, "degraded": 1, "well": 1}
    assert service_status(snapshot, "degraded", 0.0) is Status.DEGRADED
    assert snapshot.incidents["hung"].cause == "health_check_failure"
    assert "degraded" not in snapshot.incidents


def test_a_degraded_service_is_restarted_if_its_policy_says_so(ward: Ward) -> None:
    ward.world.apply([ward.spec("a", restart_degraded=True), ward.spec("b")])
    ward.begin()
    ward.mood("warning", "a")
    ward.world.until(lambda: ward.lives("a") == {"a": 2}, 60.0, "a restart")
    ward.mood("well", "a")
    ward.until_healthy("a")


def test_every_endpoint_slow_for_one_interval_restarts_nothing_and_status_says_what_was_seen(ward: Ward) -> None:
    """With fifty services and checks every two seconds: however busy the machine, one interval is long enough."""
    interval, told = 2.0, set[str]()

    def look() -> bool:
        told.update(observed(ward))
        return True

    ward.world.apply([ward.spec(name, checks=(ward.check(name, interval),)) for name in FIFTY])
    ward.begin()
    ward.mood(f"slow {2 * TIMEOUT_SECONDS}", *FIFTY)
    ward.stays(look, interval, "")
    ward.mood("well", *FIFTY)
    ward.world.until(lambda: look() and told and ward.healthy(*FIFTY), 60.0, "a doubt, and then the end of it")
    ward.stays(lambda: ward.lives(*FIFTY) == dict.fromkeys(FIFTY, 1), 5.0, "nothing restarted")
    assert ward.world.snapshot().incidents == {}
    assert all("Consul calls" in message for message in told)


def observed(ward: Ward) -> set[str]:
    """What the status says of those who observe."""
    problems = stack_problems(ward.world.snapshot(), led=True)
    return {problem.message for problem in problems if problem.kind == "observer"}


def test_a_consul_that_is_silent_for_long_restarts_nothing(ward: Ward) -> None:
    ward.world.apply([ward.spec(name) for name in TEN])
    with ConsulProxy(ward.world.consul) as proxy:
        ward.world.orchestrator(consul=proxy.address)
        ward.world.agent(consul=proxy.address)
        ward.up()
        proxy.silence()
        ward.world.until(lambda: ward.world.leader() is None, 90.0, "the leader's lock to be free")
        ward.world.until(lambda: not ward.world.snapshot().agents, 90.0, "the agent's lock to be free")
        proxy.cut()
        proxy.speak()
        ward.world.until_led()
        ward.world.until(lambda: ward.world.snapshot().agents, 90.0, "the agent to be back")
        ward.stays(lambda: ward.lives(*TEN) == dict.fromkeys(TEN, 1), 5.0, "nothing restarted")
        assert ward.world.snapshot().incidents == {}
        assert len(ward.events("agent-returned")) == 1


def test_six_of_ten_killed_at_once_freeze_recovery_until_a_person_goes_on(ward: Ward, pager: Receiver) -> None:
    ward.world.apply([ward.spec(name) for name in TEN])
    ward.begin(**paging(ward, pager))
    (agent,) = [process for process in ward.world.processes if "agent" in process.log.name]
    agent.pause()  # so that it sees all of them at once
    ward.kill(*SIX)
    agent.resume()
    stack = ward.until_incident(STACK, IncidentState.OPEN)
    frozen_at = ward.lives(*SIX)
    assert sum(frozen_at.values()) <= len(SIX) + 2  # one or two are not waited with, since they may be all
    ward.stays(lambda: ward.lives(*SIX) == frozen_at, 3.0, "frozen")
    assert set(stack.affected) == set(SIX)
    assert len(ward.events("recovery-frozen")) == 1
    (problem,) = [p for p in stack_problems(ward.world.snapshot(), led=True) if p.kind == "recovery"]
    assert "6 of 10 services" in problem.message
    assert "citadel recover all" in problem.message
    assert [(n["service"], n["transition"], n["calls_for_action"]) for n in pager.notices] == [(None, "opened", True)]
    assert "citadel recover all" in pager.notices[0]["advice"]
    assert ward.world.operate(Kind.RECOVER).state is OperationState.SUCCEEDED
    ward.until_incident(STACK, IncidentState.CLOSED)
    ward.world.until(lambda: len(pager.requests) >= 2, 90.0, "the end to be told")
    assert [(n["service"], n["transition"]) for n in pager.notices] == [(None, "opened"), (None, "closed")]
    assert ward.lives(*TEN) == {**dict.fromkeys(TEN, 1), **dict.fromkeys(SIX, 2)}


def flap(ward: Ward, name: str) -> None:
    """Have a service fail and come back, until something is opened for that."""
    for lapse in range(1, 21):
        ward.mood("ill", name)
        ward.world.until(lambda n=lapse: _lapses(ward) >= n, 60.0, f"lapse {lapse}")  # type: ignore[misc]
        ward.mood("well", name)
        ward.until_healthy(name)
        if ward.incident(name) is not None:
            return


def test_a_quarantine_ends_with_decay(ward: Ward, pager: Receiver) -> None:
    limits = {"CITADEL_RECOVERY_FLAP_LIMIT": "3", "CITADEL_RECOVERY_FLAP_HALF_LIFE": "15s"}
    ward.world.apply([ward.spec("a"), ward.spec("b")])
    ward.begin(**paging(ward, pager), **limits)
    flap(ward, "a")
    began = ward.until_incident("a", IncidentState.QUARANTINED).opened_at
    ended = ward.until_incident("a", IncidentState.CLOSED)
    assert ended.closed_at is not None
    assert ended.closed_at - began > 15.0, "from the share that suppresses to the one that releases it is one half-life"
    assert [event.service for event in ward.events("released")] == ["a"]
    assert ward.lives("a", "b") == {"a": 1, "b": 1}
    ward.world.until(lambda: len(pager.requests) >= 2, 90.0, "the end to be told")
    assert [notice["transition"] for notice in pager.notices] == ["quarantined", "closed"]


def test_a_flapping_service_is_quarantined_within_the_configured_count(ward: Ward) -> None:
    ward.world.apply([ward.spec("a"), ward.spec("b")])
    ward.begin()
    flap(ward, "a")
    incident = ward.until_incident("a", IncidentState.QUARANTINED, 10.0)
    assert len(incident.failures) == 5
    assert ward.lives("a", "b") == {"a": 1, "b": 1}
    ward.mood("hang", "a")
    ward.stays(lambda: ward.lives("a") == {"a": 1}, 4.0, "left alone")
    assert len(ward.events("quarantined")) == 1


def _lapses(ward: Ward) -> int:
    return sum(len(seen.lapses) for i, seen in ward.world.snapshot().observed.items() if i.service == "a")


def test_i6_a_hold_stops_recovery_until_it_runs_out(ward: Ward) -> None:
    ward.world.apply([ward.spec("a"), ward.spec("b")])
    ward.begin()
    ends = time.time() + 10.0
    ward.hold("service", "a", seconds=10.0)
    ward.kill("a")
    ward.world.until(lambda: service_status(ward.world.snapshot(), "a", ends) is Status.HELD, 10.0, "held")
    while time.time() < ends:
        found = ward.lives("a")  # looked at before the hold ends, or not counted
        assert found == {"a": 1} or time.time() >= ends, ward.world.logs()
        time.sleep(0.1)
    ward.world.until(lambda: ward.lives("a") == {"a": 2}, 60.0, "recovery after the hold")


def test_a_hold_with_maintenance_takes_a_service_out_of_dns_as_long_as_it_stands(ward: Ward) -> None:
    ward.world.apply([ward.spec("a"), ward.spec("b")])
    ward.begin()
    assert ward.found_by_clients("a") == 1
    ward.hold("service", "a", maintenance=True)
    ward.world.until(lambda: ward.found_by_clients("a") == 0, 60.0, "maintenance")
    assert service_status(ward.world.snapshot(), "a", 0.0) is Status.HELD
    ward.stays(lambda: ward.lives("a") == {"a": 1}, 1.0, "not restarted")
    assert ward.world.operate(Kind.RESTART, "a").state is OperationState.SUCCEEDED
    ward.world.until(lambda: ward.found_by_clients("a") == 0, 60.0, "maintenance of the new life")
    ward.unhold("service", "a")
    ward.world.until(lambda: ward.found_by_clients("a") == 1, 60.0, "no maintenance")


def test_a_mark_of_maintenance_that_a_person_set_is_left_alone(ward: Ward) -> None:
    ward.world.apply([ward.spec("a"), ward.spec("b")])
    ward.begin()
    identity = f"{ward.world.stack}.a.n1"
    ward.world.ask(lambda client: client.service_maintenance(identity, True, "by hand"))
    ward.hold("service", "b", maintenance=True)
    ward.world.until(lambda: ward.found_by_clients("b") == 0, 60.0, "maintenance of b")
    ward.unhold("service", "b")
    ward.world.until(lambda: ward.found_by_clients("b") == 1, 60.0, "b back")
    assert ward.found_by_clients("a") == 0


def test_what_a_failed_startup_skipped_is_started_when_its_dependency_is_back(ward: Ward) -> None:
    gone = ProcessBackend(("/nonexistent/program",))
    edges = [("api", "db"), ("web", "api")]
    ward.world.apply([ward.spec("db", backend=gone, attempts=1), ward.spec("api"), ward.spec("web")], edges)
    ward.world.orchestrator()
    ward.world.agent()
    assert ward.world.operate(Kind.STARTUP).state is OperationState.FAILED
    ward.until_incident("db", IncidentState.GAVE_UP)
    assert ward.lives("api", "web") == {"api": 0, "web": 0}
    ward.world.apply([ward.spec("db"), ward.spec("api"), ward.spec("web")], edges)
    assert ward.world.operate(Kind.RECOVER, "db").state is OperationState.SUCCEEDED
    ward.until_healthy("db", "api", "web")
    assert ward.lives("api", "web") == {"api": 1, "web": 1}


def test_after_a_machine_went_down_everything_is_started_again_in_order(ward: Ward) -> None:
    ward.world.apply([ward.spec(n) for n in ("db", "api", "web")], [("api", "db"), ("web", "api")])
    ward.world.orchestrator()
    agent = ward.world.agent()
    ward.up()
    agent.kill()
    ward.kill("db", "api", "web")
    ward.world.agent()
    twice = {"db": 2, "api": 2, "web": 2}
    ward.world.until(lambda: ward.lives("db", "api", "web") == twice, 60.0, "a second life of each")
    ward.until_healthy("db", "api", "web")
    assert STACK not in ward.world.snapshot().incidents
    started = [entry.service for entry in ward.world.chronicle() if entry.what == "started"]
    assert started == ["db", "api", "web"] * 2


def test_a_service_stopped_by_hand_is_recovered_like_any_other_exit(ward: Ward) -> None:
    ward.world.apply([ward.spec("a"), ward.spec("b")])
    ward.begin()
    ward.end("a")
    ward.world.until(lambda: ward.lives("a") == {"a": 2}, 60.0, "a second life")
