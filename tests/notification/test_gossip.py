"""User events for dependents: few, short, and naming everybody."""

from __future__ import annotations

import json

from citadel_consul.orchestrator.gossip import MOST_BYTES, event_name, payloads

OPERATION = "20250715T143000000001-qdrant"


def test_a_few_dependents_share_one_event() -> None:
    (payload,) = payloads(OPERATION, ["qdrant"], ["embedding-service@n1", "api-gateway@n1"])
    assert json.loads(payload) == {
        "v": 1,
        "operation": OPERATION,
        "recovered": ["qdrant"],
        "dependents": ["embedding-service@n1", "api-gateway@n1"],
    }


def test_many_dependents_are_spread_over_events_that_are_short_enough_for_gossip() -> None:
    names = [f"service-{'x' * (number % 50)}-{number}@node-{number}" for number in range(300)]
    made = list(payloads(OPERATION, ["qdrant"], names))
    assert all(len(payload) <= MOST_BYTES for payload in made)
    assert [name for payload in made for name in json.loads(payload)["dependents"]] == names


def test_too_many_causes_are_left_out_rather_than_the_dependents() -> None:
    causes = [f"database-{'y' * 50}-{number}" for number in range(20)]
    (payload,) = payloads(OPERATION, causes, ["api@n1"])
    assert len(payload) <= MOST_BYTES
    assert json.loads(payload)["dependents"] == ["api@n1"]


def test_the_longest_names_that_there_are_fit() -> None:
    label = "z" * 63
    made = list(payloads(OPERATION, [label], [f"{label}@{label}"]))
    assert len(made) == 1
    assert len(made[0]) <= 300, "still far below what Consul takes"


def test_the_event_is_named_by_its_stack() -> None:
    assert event_name("shop") == "citadel-shop-recovered"
