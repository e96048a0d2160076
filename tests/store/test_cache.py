"""The cache of a prefix: what is news, and what holds when Consul's history was rewritten."""

from __future__ import annotations

import pytest

from citadel_consul.consul.kv import KVEntry
from citadel_consul.store.cache import PrefixCache


def entry(key: str, value: str, index: int) -> KVEntry:
    return KVEntry(key, value.encode(), modify_index=index, create_index=1, lock_index=0, flags=0, session=None)


@pytest.fixture
def cache() -> PrefixCache[str]:
    made: PrefixCache[str] = PrefixCache(lambda entry: entry.value.decode())
    made.merge(50, [entry("a", "a50", 50), entry("b", "b40", 40)])
    return made


def test_a_listing_older_than_our_own_write_does_not_undo_it(cache: PrefixCache[str]) -> None:
    cache.written(entry("a", "a60", 60), "a60")
    assert cache.merge(55, [entry("a", "a50", 50), entry("b", "b40", 40)]) == frozenset()
    assert cache.values["a"] == "a60"


def test_after_the_index_went_backwards_what_consul_answers_holds(cache: PrefixCache[str]) -> None:
    changed = cache.merge(30, [entry("a", "a30", 30)], restarted=True)
    assert changed == {"a", "b"}
    assert dict(cache.values) == {"a": "a30"}
    assert cache.index_of("a") == 30
    assert cache.index_of("b") == 0


def test_an_older_entry_in_a_newer_listing_means_that_history_was_rewritten(cache: PrefixCache[str]) -> None:
    """A snapshot was restored, and something else of the prefix was written before the watch came round again."""
    changed = cache.merge(70, [entry("a", "a30", 30), entry("b", "b70", 70)])
    assert changed == {"a", "b"}
    assert dict(cache.values) == {"a": "a30", "b": "b70"}
