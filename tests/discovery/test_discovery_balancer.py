"""The state around the choice: loads, ejections, news."""

from __future__ import annotations

import threading
from collections import Counter

from discovery_instances import Clock, drawn, instance

from citadel_consul.consul.instances import Instance
from citadel_consul.discovery.balancer import Balancer, Outcome
from citadel_consul.discovery.choice import EjectionRule
from citadel_consul.discovery.roster import REMEMBERED_SECONDS, Roster

RULE = EjectionRule(first_seconds=1.0, longest_seconds=8.0, timeouts=2)


def tell(balancer: Balancer, *instances: Instance, after_outage: bool = False) -> bool:
    return balancer.update(lambda roster, now: roster.told(instances, now, after_outage=after_outage))


def taken(balancer: Balancer, *tried: str) -> int:
    chosen = balancer.acquire(tried)
    assert chosen is not None
    return chosen.port


def test_an_instance_that_hangs_is_chosen_less_as_its_requests_pile_up() -> None:
    balancer = Balancer()
    tell(balancer, instance(1), instance(2), instance(3))
    served: Counter[int] = Counter()
    for _ in range(300):
        chosen = balancer.acquire()
        assert chosen is not None
        served[chosen.port] += 1
        if chosen.port != 1:  # 1 hangs
            balancer.release(chosen, Outcome.ANSWERED)
    assert served[1] == 1


def test_a_broken_instance_is_left_out_until_its_time_is_over() -> None:
    clock = Clock()
    balancer = Balancer(ejection=RULE, clock=clock)
    tell(balancer, instance(1), instance(2))
    balancer.report(instance(1), Outcome.BROKEN)
    assert {taken(balancer) for _ in range(20)} == {2}
    clock.now += 1.0
    assert taken(balancer) == 1  # all those requests still burden 2


def test_an_answer_ends_an_ejection() -> None:
    balancer = Balancer(ejection=RULE, clock=Clock(), draw=lambda: 0.0)
    tell(balancer, instance(1), instance(2))
    balancer.report(instance(1), Outcome.BROKEN)
    balancer.report(instance(1), Outcome.ANSWERED)
    assert taken(balancer) == 1


def test_timeouts_in_a_row_eject_and_an_answer_between_them_does_not_count_on() -> None:
    balancer = Balancer(ejection=RULE, clock=Clock(), draw=lambda: 0.0)
    tell(balancer, instance(1), instance(2))
    for outcome in (Outcome.TIMED_OUT, Outcome.ANSWERED, Outcome.TIMED_OUT, Outcome.UNKNOWN):
        balancer.report(instance(1), outcome)
    first = balancer.acquire()
    assert first == instance(1)
    balancer.release(instance(1), Outcome.TIMED_OUT)
    assert taken(balancer) == 2


def test_who_passes_its_checks_again_starts_with_a_clean_record() -> None:
    balancer = Balancer(ejection=RULE, clock=Clock(), draw=lambda: 0.0)
    tell(balancer, instance(1), instance(2))
    balancer.report(instance(1), Outcome.BROKEN)
    tell(balancer, instance(1, "critical"), instance(2))
    tell(balancer, instance(1), instance(2))
    assert taken(balancer) == 1


def test_a_change_elsewhere_does_not_end_an_ejection() -> None:
    balancer = Balancer(ejection=RULE, clock=Clock(), draw=lambda: 0.0)
    tell(balancer, instance(1), instance(2))
    balancer.report(instance(1), Outcome.BROKEN)
    tell(balancer, instance(1), instance(2), instance(3))
    assert taken(balancer) == 2


def test_an_instance_that_moved_is_not_blamed_for_its_old_address() -> None:
    balancer = Balancer(ejection=RULE, clock=Clock(), draw=lambda: 0.0)
    tell(balancer, instance(1))
    balancer.report(instance(1), Outcome.BROKEN)
    tell(balancer, instance(2), instance(3))
    assert taken(balancer) == 2


def test_a_request_goes_where_it_was_not_tried() -> None:
    balancer = Balancer(draw=drawn(0.0, 0.0))
    tell(balancer, instance(1), instance(2))
    assert taken(balancer, "10.0.0.1:1") == 2
    assert not balancer.untried({"10.0.0.1:1", "10.0.0.1:2"})
    assert balancer.untried({"10.0.0.1:1"})


def test_near_keeps_to_the_nearest_node_while_it_serves() -> None:
    balancer = Balancer(near=True, ejection=RULE, clock=Clock())
    tell(balancer, instance(1, node="here"), instance(3, node="here"), instance(2, node="there"))
    assert {taken(balancer) for _ in range(30)} == {1, 3}
    balancer.report(instance(1), Outcome.BROKEN)
    assert {taken(balancer) for _ in range(10)} == {3}
    balancer.report(instance(3), Outcome.BROKEN)
    assert taken(balancer) == 2


def test_an_update_says_whether_others_serve_now() -> None:
    balancer = Balancer()
    assert tell(balancer, instance(1))
    assert not tell(balancer, instance(1), instance(2, "warning"))
    assert tell(balancer, instance(2, "warning"))


def test_what_is_only_remembered_is_forgotten_in_time() -> None:
    clock = Clock()
    balancer = Balancer(clock=clock)
    tell(balancer, instance(1))
    tell(balancer, after_outage=True)
    assert taken(balancer) == 1
    clock.now += REMEMBERED_SECONDS
    assert balancer.acquire() is None
    assert balancer.roster == Roster(known=True)


def test_no_load_is_lost_among_threads() -> None:
    balancer = Balancer()
    tell(balancer, instance(1), instance(2))

    def work() -> None:
        for _ in range(2000):
            chosen = balancer.acquire()
            assert chosen is not None
            balancer.release(chosen, Outcome.ANSWERED)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert balancer._loads == {}
