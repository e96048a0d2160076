"""The tests of the client, run over the simulated Consul: what a real one was seen to do, the simulated one does too.

They are the very functions that ``tests/consul_client`` runs over a real Consul. Left out are those of what neither an
orchestrator nor a node agent asks for: lock delays, prepared queries, most filters, nodes, checks without a service.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from clockwork import Process
from simulated_consul import Agent, Cluster
from simulated_link import Link
from test_consul_agent import (  # noqa: F401  # collected here as well, over other fixtures
    test_an_unknown_state_is_a_mistake_and_not_an_empty_list,
    test_feeding_a_check_that_the_agent_does_not_have_is_told_from_an_outage,
    test_registering_again_keeps_other_checks_unless_told_to_replace_them,
    test_the_checks_of_a_stack_are_chosen_among_those_of_all,
    test_what_does_not_pass_on_a_node_is_chosen_among_its_checks,
    test_what_is_not_registered_can_be_deregistered,
)
from test_consul_kv import (  # noqa: F401  # collected here as well, over other fixtures
    test_64_operations_and_half_a_megabyte_are_accepted,
    test_a_list_gives_back_what_did_not_move_as_the_same_object,
    test_a_lock_is_taken_and_given_back_through_put,
    test_a_transaction_does_all_and_says_what_it_left,
    test_a_transaction_that_fails_anywhere_writes_nothing_and_names_the_key,
    test_a_value_comes_back_under_any_key_as_it_was_put,
    test_an_empty_value_is_a_value_and_a_missing_key_is_none,
    test_compare_and_set_writes_once,
    test_deleting_a_prefix_leaves_its_neighbours,
    test_the_epoch_grows_though_the_lock_index_starts_again,
    test_the_fence_stops_a_deposed_leader_even_if_it_would_win_the_compare_and_set,
)
from test_consul_lease import (  # noqa: F401  # collected here as well, over other fixtures
    test_a_beating_loop_keeps_the_lock_past_every_ttl_of_its_check,
    test_a_cancelled_holder_still_gives_its_lock_back,
    test_a_deposed_holder_goes_back_into_the_queue_with_a_living_session,
    test_a_free_lock_is_taken_and_its_epoch_is_the_index_of_the_write,
    test_a_holder_learns_at_once_that_its_session_was_destroyed,
    test_a_holder_that_was_killed_does_not_keep_its_lock_by_coming_back,
    test_a_loop_that_stops_beating_loses_the_lock_within_the_ttl_of_its_check,
    test_a_released_lock_is_handed_over_in_milliseconds_and_the_epoch_grows,
    test_a_standby_keeps_its_own_session_alive_while_it_waits,
    test_a_standby_whose_session_was_taken_away_makes_another,
    test_a_successor_that_knows_its_predecessor_dead_does_not_wait_for_it,
    test_a_value_that_is_a_function_is_asked_at_each_tenure,
    test_leaving_gives_the_lock_back_before_it_ends_the_session_and_takes_the_service_out,
    test_the_epoch_grows_even_if_the_key_was_deleted_in_between,
    test_who_waited_in_vain_takes_out_nothing_of_the_holder,
)
from test_consul_sessions import (  # noqa: F401  # collected here as well, over other fixtures
    test_a_failing_service_check_frees_the_lock,
    test_a_renewal_says_whether_the_session_is_there,
    test_a_session_binds_to_a_check_that_was_registered_a_moment_ago,
    test_a_session_does_not_bind_to_a_check_that_never_comes,
    test_a_session_is_what_was_asked_for,
)
from test_consul_watch import (  # noqa: F401  # collected here as well, over other fixtures
    test_a_watch_of_a_real_prefix_sees_each_write_at_once,
    test_a_write_elsewhere_does_not_wake_a_watch,
)

from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.transport import HttpxTransport

NODE = "n1"


@dataclass(frozen=True, slots=True)
class SimulatedSpace:
    """What the tests ask of the Consul that they run over."""

    prefix: str
    node: str = NODE


@pytest.fixture
def consul() -> SimulatedSpace:
    return SimulatedSpace(f"citadel/t-{uuid.uuid4().hex[:12]}/")


@pytest.fixture
async def client() -> AsyncIterator[ConsulClient]:
    """A client of a simulated Consul that lives on real time."""
    loop = asyncio.get_running_loop()
    cluster = Cluster(loop, random.Random(1), lambda _: True)
    address = parse_address("127.0.0.1:8500")
    transport = HttpxTransport(address, transport=Link(Agent(cluster, NODE, "127.0.0.1"), Process("test", NODE)))
    async with ConsulClient(address, transport=transport) as opened:
        yield opened
