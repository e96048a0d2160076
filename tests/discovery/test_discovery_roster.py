"""What is made of Consul's list: above all of one that is suddenly empty."""

from __future__ import annotations

import pytest
from discovery_instances import instance

from citadel_consul.discovery.roster import REMEMBERED_SECONDS, Roster

PASSING = (instance(1), instance(2))
FAILING = (instance(1, "critical"), instance(2, "critical"))
KNOWN = Roster(PASSING, known=True)


@pytest.mark.parametrize("answer", [(), FAILING])
def test_an_empty_list_is_believed_as_long_as_consul_was_there(answer: tuple[()]) -> None:
    assert KNOWN.told(answer, 0.0, after_outage=False) == Roster((), known=True)


@pytest.mark.parametrize("answer", [(), FAILING])
def test_after_an_outage_who_served_before_serves_on_if_nobody_else_does(answer: tuple[()]) -> None:
    roster = KNOWN.told(answer, 0.0, after_outage=True)
    assert roster.instances == PASSING
    assert roster.at(REMEMBERED_SECONDS - 0.1).instances == PASSING
    assert roster.at(REMEMBERED_SECONDS).instances == ()


def test_after_an_outage_a_list_that_names_anybody_is_believed() -> None:
    assert KNOWN.told((instance(2), instance(1, "critical")), 0.0, after_outage=True).instances == (instance(2),)


def test_while_checks_run_again_one_by_one_the_memory_is_not_prolonged() -> None:
    roster = KNOWN.told((), 0.0, after_outage=True).told(FAILING, 30.0, after_outage=True)
    assert roster.at(REMEMBERED_SECONDS - 0.1).instances == PASSING
    assert roster.at(REMEMBERED_SECONDS).instances == ()


def test_the_first_that_passes_again_ends_the_memory() -> None:
    roster = KNOWN.told((), 0.0, after_outage=True).told((instance(2),), 1.0, after_outage=False)
    assert roster == Roster((instance(2),), known=True)
    assert roster.told((), 2.0, after_outage=False).instances == ()


def test_nothing_is_remembered_of_a_service_that_never_served() -> None:
    assert Roster().told((), 0.0, after_outage=True) == Roster(known=True)


def test_instances_of_another_datacenter_stand_in_until_a_local_one_serves() -> None:
    alone = KNOWN.told((), 0.0, after_outage=False).helped((instance(9), instance(8, "critical")))
    assert alone.instances == (instance(9),)
    assert alone.told((), 1.0, after_outage=False).instances == (instance(9),)
    assert alone.told(PASSING, 2.0, after_outage=False) == KNOWN
