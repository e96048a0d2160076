"""What a request may do after a failure, and how long it may take: without a network, on fake time."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from discovery_instances import Clock, instance

from citadel_consul.consul.instances import Instance
from citadel_consul.discovery.balancer import Balancer
from citadel_consul.discovery.budget import Budget
from citadel_consul.discovery.failures import DeadlineExceeded, NoInstance
from citadel_consul.discovery.journey import LONGEST_PAUSE_SECONDS, Interrupted, Journey, Rules
from citadel_consul.discovery.naming import ServiceName
from citadel_consul.discovery.view import View


def view_of(clock: Clock, *instances: Instance) -> View:
    balancer = Balancer(clock=clock, draw=lambda: 0.0)
    balancer.update(lambda roster, now: roster.told(instances, now, after_outage=False))
    return View(ServiceName("web"), balancer, clock)


def journey(request: httpx.Request, clock: Clock, *instances: Instance, deadline: float | None = None) -> Journey:
    rules = Rules(attempts=4, deadline_seconds=deadline, clock=clock, draw=lambda: 1.0)
    return Journey(request, view_of(clock, *instances), rules)


def get(**extensions: object) -> httpx.Request:
    return httpx.Request("GET", "http://web.consul/a?b=c", extensions=extensions)


def generated() -> Iterator[bytes]:
    yield b"once"


REFUSED = httpx.ConnectError("refused")
BROKEN = httpx.ReadError("reset")
SILENT = httpx.ReadTimeout("silence")
KEY = {"Idempotency-Key": "7"}


@pytest.mark.parametrize(
    ("request_", "error", "again"),
    [
        (get(), BROKEN, True),
        (get(), SILENT, True),
        (get(), httpx.RemoteProtocolError("hung up"), True),
        (httpx.Request("PUT", "http://web.consul/", content=b"x"), BROKEN, True),
        (httpx.Request("DELETE", "http://web.consul/"), BROKEN, True),
        (httpx.Request("POST", "http://web.consul/", content=b"x"), BROKEN, False),
        (httpx.Request("POST", "http://web.consul/", content=b"x"), SILENT, False),
        (httpx.Request("POST", "http://web.consul/", content=b"x"), REFUSED, True),
        (httpx.Request("POST", "http://web.consul/", content=b"x"), httpx.ConnectTimeout("late"), True),
        (httpx.Request("POST", "http://web.consul/", content=b"x", headers=KEY), BROKEN, True),
        (httpx.Request("PATCH", "http://web.consul/", content=b"x"), BROKEN, False),
        # A body from an iterator is gone once it was sent, whatever the method; not if nothing was sent.
        (httpx.Request("PUT", "http://web.consul/", content=generated()), BROKEN, False),
        (httpx.Request("PUT", "http://web.consul/", content=generated()), REFUSED, True),
        # Neither of these is the instance's fault, and the next one would do no better.
        (get(), httpx.PoolTimeout("all connections are in use"), False),
        (get(), httpx.LocalProtocolError("bad header"), False),
    ],
    ids=lambda value: f"{value.method}" if isinstance(value, httpx.Request) else str(value),
)
def test_only_what_is_safe_to_repeat_is_tried_again(
    request_: httpx.Request, error: httpx.TransportError, again: bool
) -> None:
    travelling = journey(request_, Clock(), instance(1), instance(2))
    raised = travelling.failed(travelling.choose(), error)
    assert isinstance(raised, Interrupted) == again
    assert (raised.error if isinstance(raised, Interrupted) else raised) is error


def test_attempts_go_to_instances_that_were_not_tried_and_at_once() -> None:
    travelling = journey(get(), Clock(), instance(1), instance(2), instance(3))
    ports, pauses = [], []
    for _ in range(3):
        chosen = travelling.choose()
        ports.append(chosen.instance.port)
        travelling.failed(chosen, BROKEN)
        pauses.append(travelling.pause_seconds())
    assert sorted(ports) == [1, 2, 3]
    assert pauses[:2] == [0.0, 0.0]
    assert pauses[2] > 0


def test_pauses_grow_up_to_a_bound_when_all_were_tried() -> None:
    travelling = journey(get(), Clock(), instance(1))
    pauses = []
    for _ in range(7):
        travelling.failed(travelling.choose(), REFUSED)
        pauses.append(travelling.pause_seconds())
    assert pauses == [0.025, 0.05, 0.1, 0.2, 0.4, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS]


def test_a_service_that_nobody_serves_is_tried_again_after_a_pause() -> None:
    travelling = journey(get(), Clock())
    with pytest.raises(Interrupted) as interrupted:
        travelling.choose()
    assert isinstance(interrupted.value.error, NoInstance)
    assert travelling.pause_seconds() > 0


def test_the_request_goes_to_the_instance_under_the_services_name() -> None:
    sent = journey(get(), Clock(), instance(8080)).addressed_to(instance(8080))
    assert sent.url == "http://10.0.0.1:8080/a?b=c"
    assert sent.headers["host"] == "web.consul"


def test_a_port_in_the_url_is_the_one_that_is_used_as_with_dns() -> None:
    request = httpx.Request("GET", "http://web.service.consul:9000/")
    assert journey(request, Clock(), instance(8080)).addressed_to(instance(8080)).url.port == 9000


def test_a_certificate_is_checked_against_the_services_name() -> None:
    request = httpx.Request("GET", "https://web.consul/")
    sent = journey(request, Clock(), instance(8443)).addressed_to(instance(8443))
    assert sent.extensions["sni_hostname"] == "web.consul"


def test_an_ipv6_address_is_a_host_too() -> None:
    six = Instance("w", "web", "n1", "dc1", "::1", 8080, "passing", 1)
    assert str(journey(get(), Clock(), six).addressed_to(six).url) == "http://[::1]:8080/a?b=c"


def test_without_a_deadline_the_time_outs_are_the_callers() -> None:
    request = get(timeout={"connect": 1.0, "read": 60.0, "write": None, "pool": 3.0})
    sent = journey(request, Clock(), instance(1)).addressed_to(instance(1))
    assert sent.extensions["timeout"] == {"connect": 1.0, "read": 60.0, "write": None, "pool": 3.0}


def test_an_attempt_that_has_alternatives_gets_half_of_the_time_that_is_left() -> None:
    clock = Clock()
    travelling = journey(get(timeout={"connect": 1.0, "read": None}), clock, instance(1), instance(2), deadline=8.0)
    first = travelling.choose()
    assert travelling.addressed_to(first.instance).extensions["timeout"]["read"] == 4.0
    assert travelling.addressed_to(first.instance).extensions["timeout"]["connect"] == 1.0
    clock.now += 4.0
    travelling.failed(first, SILENT)
    # The other one is the last.
    assert travelling.addressed_to(travelling.choose().instance).extensions["timeout"]["read"] == 4.0


def test_a_request_that_may_not_be_repeated_gets_all_the_time_there_is() -> None:
    request = httpx.Request("POST", "http://web.consul/", content=b"x")
    sent = journey(request, Clock(), instance(1), instance(2), deadline=8.0).addressed_to(instance(1))
    assert sent.extensions["timeout"]["read"] == 8.0


def test_a_request_can_have_a_deadline_of_its_own() -> None:
    clock = Clock()
    travelling = journey(get(deadline=1.5), clock, instance(1), deadline=8.0)
    assert travelling.addressed_to(instance(1)).extensions["timeout"]["read"] == 1.5
    clock.now += 1.5
    raised = travelling.failed(travelling.choose(), SILENT)
    assert isinstance(raised, DeadlineExceeded)
    assert raised.__cause__ is SILENT


def test_time_outs_are_repeated_within_a_budget_and_broken_connections_always() -> None:
    clock, budget = Clock(), Budget(share=0.5, reserve=2.0)
    view = view_of(clock, instance(1), instance(2))
    rules = Rules(deadline_seconds=8.0, clock=clock, budget=budget)

    def repeated(error: httpx.TransportError) -> bool:
        travelling = Journey(get(), view, rules)
        return isinstance(travelling.failed(travelling.choose(), error), Interrupted)

    # Each request adds a half, but the budget was full before the first.
    assert [repeated(SILENT) for _ in range(6)] == [True, True, True, False, True, False]
    assert all(repeated(BROKEN) for _ in range(10))


def test_a_request_whose_time_out_would_not_be_repeated_gets_all_the_time_there_is() -> None:
    clock, budget = Clock(), Budget(share=0.0, reserve=1.0)
    view = view_of(clock, instance(1), instance(2))
    rules = Rules(deadline_seconds=8.0, clock=clock, budget=budget)
    assert Journey(get(), view, rules).addressed_to(instance(1)).extensions["timeout"]["read"] == 4.0
    budget.take()
    assert Journey(get(), view, rules).addressed_to(instance(1)).extensions["timeout"]["read"] == 8.0


def test_a_request_that_was_cut_short_has_another_attempt_although_others_have_spent_the_budget() -> None:
    clock, budget = Clock(), Budget(share=0.0, reserve=2.0)
    view = view_of(clock, instance(1), instance(2), instance(3))
    rules = Rules(deadline_seconds=8.0, clock=clock, budget=budget)
    travelling = Journey(get(), view, rules)
    first = travelling.choose()
    assert travelling.addressed_to(first.instance).extensions["timeout"]["read"] == 4.0
    assert [budget.take() for _ in range(3)] == [True, True, False]
    assert isinstance(travelling.failed(first, SILENT), Interrupted)
    # It has all of the time that is left now, and is owed no more.
    second = travelling.choose()
    assert travelling.addressed_to(second.instance).extensions["timeout"]["read"] == 8.0
    assert travelling.failed(second, SILENT) is SILENT


def test_credit_is_bounded_and_made_up_for_before_anybody_else_has_any() -> None:
    budget = Budget(share=0.5, reserve=2.0)
    assert all(budget.take(owed=True) for _ in range(100))
    for _ in range(5):
        budget.fill()
    assert not budget.take()
    budget.fill()
    assert budget.take()


def test_no_pause_goes_past_the_deadline() -> None:
    travelling = journey(get(deadline=0.01), Clock(), instance(1))
    travelling.failed(travelling.choose(), REFUSED)
    assert travelling.pause_seconds() == pytest.approx(0.01)
