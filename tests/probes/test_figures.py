"""Figures: which numbers are taken from what a service says of itself, and what becomes of several instances."""

from __future__ import annotations

import math

import pytest

from citadel_consul.core.answers.health import ServiceHealth
from citadel_consul.core.figures import COMMON, RESERVED, combined, figures_in

DOCUMENT = {
    "gpu_utilization": 78.5,
    "memory_usage_mb": 2340,
    "requests": {"rate": 12.5, "errors": [1, {"count": 7}]},
    "status": "ok",
    "ready": True,
    "queue_size": "12",
}


def test_the_usual_figures_need_no_mention() -> None:
    assert figures_in(DOCUMENT, {}) == {"gpu_utilization": 78.5, "memory_usage_mb": 2340}


def test_a_spec_says_where_others_are_and_may_move_the_usual_ones() -> None:
    metrics = {"request_rate": "requests.rate", "lost": "requests.errors.1.count", "gpu_utilization": "requests.rate"}
    assert figures_in(DOCUMENT, metrics) == {
        "gpu_utilization": 12.5,
        "memory_usage_mb": 2340,
        "request_rate": 12.5,
        "lost": 7,
    }


@pytest.mark.parametrize(
    "path", ["nothing", "status", "ready", "requests", "requests.rate.deeper", "requests.errors.2", "requests.errors.x"]
)
def test_what_is_missing_or_no_number_is_left_out(path: str) -> None:
    assert "wanted" not in figures_in(DOCUMENT, {"wanted": path})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, None, True, "5", [], {}])
def test_what_json_could_not_say_again_is_left_out(value: object) -> None:
    assert figures_in({"queue_size": value}, {}) == {}


@pytest.mark.parametrize("document", [None, [], "text", 5])
def test_a_document_that_is_no_object_holds_nothing(document: object) -> None:
    assert figures_in(document, {}) == {}


def test_shares_of_several_instances_are_averaged_and_amounts_are_added() -> None:
    one = {"gpu_utilization": 80.0, "error_rate": 1.0, "queue_size": 3, "cache_hit_percent": 90.0}
    other = {"gpu_utilization": 40.0, "error_rate": 0.0, "queue_size": 4}
    assert combined([one, other]) == {
        "gpu_utilization": 60.0,
        "error_rate": 0.5,
        "queue_size": 7,
        "cache_hit_percent": 90.0,
    }


def test_no_figure_hides_what_citadel_says() -> None:
    assert set(ServiceHealth.__dataclass_fields__) <= RESERVED
    assert not RESERVED & set(COMMON)
