"""Postings: notices on their way to those who are to be told, and what became of each.

A posting is written before anything is sent, and once more after each delivery. So whoever leads next knows what is
still to be delivered, and to whom; at worst something is delivered twice, with the same id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from citadel_consul.consul.client import ConsulClient
from citadel_consul.consul.kv import KVEntry
from citadel_consul.core.notice import Notice
from citadel_consul.store.documents import Document, UndecodableError
from citadel_consul.store.keys import Keys


class DeliveryState(StrEnum):
    """``failed``: given up, because the receiver refused it or was away for too long."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a notice at one receiver, and when (unix seconds)."""

    state: DeliveryState = DeliveryState.PENDING
    at: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Posting:
    """A notice, and each receiver that it is addressed to, by name.

    ``number`` counts the postings of a stack. Clocks of two leaders differ, so times do not give the order.
    """

    notice: Notice
    receivers: Mapping[str, Delivery] = field(default_factory=dict)
    number: int = 0

    @property
    def pending(self) -> bool:
        """Whether it is still to be delivered to somebody."""
        return any(delivery.state is DeliveryState.PENDING for delivery in self.receivers.values())

    def is_pending_for(self, receiver: str) -> bool:
        """Whether it is still to be delivered to ``receiver``."""
        delivery = self.receivers.get(receiver)
        return delivery is not None and delivery.state is DeliveryState.PENDING

    def settled(self, receiver: str, delivery: Delivery) -> Posting:
        """The same with what became of it at ``receiver``."""
        return replace(self, receivers={**self.receivers, receiver: delivery})


POSTING = Document(Posting)


async def read_postings(client: ConsulClient, keys: Keys) -> list[Posting]:
    """All postings that are kept, oldest first."""
    listing = await client.kv_list(keys.notices)
    return decode_postings(listing.value)


def decode_postings(entries: Iterable[KVEntry]) -> list[Posting]:
    """The postings that can be read, oldest first."""
    found = []
    for entry in entries:
        try:
            found.append(POSTING.decode(entry.value))
        except UndecodableError:
            continue
    return sorted(found, key=lambda posting: posting.number)
