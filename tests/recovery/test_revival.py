"""What is wanted and could not be started is started when what it needs is back."""

from __future__ import annotations

from typing import Any

import pytest
from clinic import Behaviour, Clinic, clinic_of, patient

from citadel_consul.core.lifecycle import Phase
from citadel_consul.core.model import Condition, Edge, Instance, OnFailure
from citadel_consul.core.operation import Kind, OperationState

DB, A1 = Instance("db", "n1"), Instance("a", "n1")


def failed_startup(*, on_failure: OnFailure | None = None, **policy: Any) -> Clinic:
    """``b`` needs ``a`` needs ``db``, which cannot be started; a startup of all of it has failed."""
    clinic = clinic_of([patient("db", **policy), patient("a"), patient("b")], Edge("a", "db"), Edge("b", "a"))
    clinic.request(Kind.SHUTDOWN)
    clinic.pass_time(10.0)
    clinic.behaviours[DB] = Behaviour(cannot_start=True)
    operation = clinic.request(Kind.STARTUP, on_failure=on_failure)
    clinic.pass_time(1.0)
    assert clinic.state(operation) is OperationState.FAILED
    return clinic


def test_services_skipped_in_a_startup_start_when_recovery_has_brought_back_what_they_need() -> None:
    clinic = failed_startup(attempts=50)
    clinic.behaviours.clear()
    clinic.pass_time(100.0)
    assert clinic.healthy() == {"db", "a", "b"}
    assert [clinic.starts(name) for name in ("a", "b")] == [2, 2]


def test_services_skipped_in_a_startup_start_when_a_person_has_brought_back_what_they_need() -> None:
    clinic = failed_startup(enabled=False)
    clinic.pass_time(100.0)
    assert clinic.healthy() == set()
    clinic.behaviours.clear()
    clinic.request(Kind.STARTUP, "db")
    clinic.pass_time(10.0)
    assert clinic.healthy() == {"db", "a", "b"}


def test_it_is_one_operation_in_order_by_citadel() -> None:
    clinic = failed_startup(enabled=False)
    clinic.behaviours.clear()
    clinic.request(Kind.STARTUP, "db")
    clinic.pass_time(10.0)
    first, second = clinic.automatic()
    assert (first.kind, first.targets, first.options.reason) == (Kind.STARTUP, ("a@n1",), "what it needs is back")
    assert second.targets == ("b@n1",)


@pytest.mark.parametrize("on_failure", [OnFailure.KEEP, OnFailure.ROLLBACK])
def test_what_a_failure_policy_left_out_or_undid_is_not_started_later(on_failure: OnFailure) -> None:
    clinic = failed_startup(on_failure=on_failure, enabled=False)
    clinic.behaviours.clear()
    clinic.request(Kind.STARTUP, "db")
    clinic.pass_time(30.0)
    assert clinic.healthy() == {"db"}


def test_what_was_cancelled_is_not_started_later() -> None:
    clinic = clinic_of([patient("db"), patient("a")], Edge("a", "db"))
    clinic.request(Kind.SHUTDOWN)
    clinic.pass_time(10.0)
    operation = clinic.request(Kind.STARTUP)
    clinic.work()
    clinic.cancel(operation)
    clinic.pass_time(60.0)
    assert clinic.state(operation) is OperationState.CANCELLED
    assert clinic.healthy() == {"db"}


def test_what_was_shut_down_meanwhile_is_not_started_later() -> None:
    clinic = failed_startup(enabled=False)
    clinic.request(Kind.SHUTDOWN)
    clinic.pass_time(10.0)
    clinic.behaviours.clear()
    clinic.request(Kind.STARTUP, "db")
    clinic.pass_time(30.0)
    assert clinic.healthy() == {"db"}


def test_what_a_startup_had_no_time_for_is_started_when_it_can_be() -> None:
    clinic = clinic_of([patient("db", start_timeout_seconds=200.0), patient("a")], Edge("a", "db"))
    clinic.request(Kind.SHUTDOWN)
    clinic.pass_time(10.0)
    clinic.behaviours[DB] = Behaviour(ready_after=90.0)
    operation = clinic.request(Kind.STARTUP)
    clinic.pass_time(61.0)
    assert clinic.state(operation) is OperationState.FAILED
    clinic.pass_time(60.0)
    assert clinic.healthy() == {"db", "a"}
    assert clinic.starts("db") == 2


def test_a_start_that_no_agent_took_is_made_when_the_agent_is_there() -> None:
    clinic = clinic_of([patient("a"), patient("b", "n2")])
    clinic.request(Kind.SHUTDOWN)
    clinic.pass_time(10.0)
    clinic.silent = {"n2"}
    clinic.request(Kind.STARTUP)
    clinic.pass_time(30.0)
    assert clinic.healthy() == {"a"}
    clinic.silent = set()
    clinic.pass_time(10.0)
    assert clinic.healthy() == {"a", "b"}


def test_a_oneshot_that_succeeds_at_last_lets_its_dependents_start() -> None:
    migrate = Instance("migrate", "n1")
    clinic = clinic_of([], defaults=clinic_of([]).defaults)
    clinic.specs = {s.name: s for s in (patient("migrate", oneshot=True, attempts=20), patient("a"))}
    clinic.edges = [Edge("a", "migrate", condition=Condition.COMPLETED)]
    clinic.behaviours[migrate] = Behaviour(exits_after=1.0)
    clinic.request(Kind.STARTUP)
    clinic.pass_time(20.0)
    assert clinic.observed[migrate].phase is Phase.EXITED
    assert A1 not in clinic.processes
    clinic.behaviours[migrate] = Behaviour(exits_after=1.0, exits_well=True)
    clinic.pass_time(400.0)
    assert clinic.observed[migrate].phase is Phase.COMPLETED
    assert A1 in clinic.processes


def test_a_dependent_is_not_started_above_something_deeper_that_was_given_up() -> None:
    clinic = failed_startup(attempts=1)
    clinic.pass_time(200.0)
    starts = clinic.starts("db")
    clinic.desired[A1] = clinic.desired[A1]
    clinic.pass_time(200.0)
    assert clinic.starts("db") == starts
    assert clinic.healthy() == set()
