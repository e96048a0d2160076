"""Which orders a node agent follows: those of no deposed leader, and none while its own lock may be another's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from citadel_consul.agent.chronicle import Chronicle, read_chronicle
from citadel_consul.agent.orders import Orders
from citadel_consul.agent.reporter import Reporter
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.core.lifecycle import Desired
from citadel_consul.store import documents
from citadel_consul.store.documents import NodeDesired, NodeObserved
from citadel_consul.store.keys import Keys

OBEYED = 40


@dataclass
class Lock:
    """The lock of the node, as far as orders ask about it."""

    sure: bool = True


class Desk:
    """Orders as they arrive, without the watch that brings them."""

    def __init__(self, folder: Path) -> None:
        self.lock = Lock()
        self.followed: list[tuple[str, int]] = []
        self.history = folder / "history.jsonl"
        self.chronicle = Chronicle(self.history)
        client, keys = ConsulClient(parse_address("127.0.0.1:1")), Keys("demo")
        self.reporter = Reporter(client, keys, "n1", NodeObserved(epoch=OBEYED))
        self.orders = Orders(
            client,
            keys,
            "n1",
            self.lock,  # type: ignore[arg-type]
            self.reporter,
            self.chronicle,
            lambda service, desired: self.followed.append((service, desired.generation)),
            lambda: 0.0,
        )

    def arrive(self, epoch: int, generation: int = 1, service: str = "web") -> None:
        """Have orders come in."""
        document = NodeDesired(epoch, {service: Desired(run=True, generation=generation)})
        value = documents.DESIRED.encode(document)
        self.orders._latest = KVEntry("citadel/demo/desired/n1", value, epoch, epoch, 0, 0, None)
        self.orders._consider()

    def refused(self) -> list[int]:
        """The epochs whose orders were refused, as the node's history has them."""
        return [entry.epoch for entry in read_chronicle(self.history) if entry.what == "refused"]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.chronicle.close()


def test_orders_of_the_epoch_that_was_obeyed_last_and_of_later_ones_are_followed(desk: Desk) -> None:
    desk.arrive(OBEYED, 1)
    desk.arrive(OBEYED + 1, 2)
    assert desk.followed == [("web", 1), ("web", 2)]
    assert desk.reporter.document.epoch == desk.orders.epoch == OBEYED + 1
    assert desk.refused() == []


def test_orders_of_a_deposed_leader_are_refused_and_that_is_written_down(desk: Desk) -> None:
    desk.arrive(OBEYED + 2, 2)
    desk.arrive(OBEYED + 1, 3)
    assert desk.followed == [("web", 2)]
    assert desk.orders.epoch == OBEYED + 2
    assert desk.refused() == [OBEYED + 1]


def test_orders_wait_while_the_lock_may_be_anothers(desk: Desk) -> None:
    desk.lock.sure = False
    desk.arrive(OBEYED + 1)
    desk.orders.look_again()
    assert desk.followed == []
    desk.lock.sure = True
    desk.orders.look_again()
    assert desk.followed == [("web", 1)]


def test_what_was_followed_is_not_taken_up_again_by_another_look(desk: Desk) -> None:
    desk.arrive(OBEYED + 1)
    desk.orders.look_again()
    assert desk.followed == [("web", 1)]


def test_after_consul_lost_its_data_the_epochs_of_the_new_log_are_obeyed(desk: Desk) -> None:
    desk.arrive(3)
    assert desk.followed == []
    desk.reporter._document = NodeObserved(epoch=0)
    desk.orders.begin_anew()
    assert desk.followed == [("web", 1)]


def test_who_is_named_is_known_only_while_orders_are_in_force(desk: Desk) -> None:
    assert desk.orders.name("web")
    assert desk.orders.name("other")
    desk.arrive(OBEYED + 1)
    assert desk.orders.name("web")
    assert not desk.orders.name("other")
