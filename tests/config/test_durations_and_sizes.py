"""Durations and sizes as people write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_consul.config import durations, sizes
from citadel_consul.config.durations import format_duration, parse_duration
from citadel_consul.config.sizes import parse_size
from citadel_consul.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("7d", 604800),
        ("1m0.5s", 60.5),
        ("1d2h3m4s5ms", 93784.005),
        (" 30s ", 30),
        ("30", 30),
        ("0.5", 0.5),
        ("0", 0),
        ("0s", 0),
        (30, 30),
        (0.25, 0.25),
    ],
)
def test_a_duration_is_read_in_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "s", "30 s", "5 minutes", "1m1h", "1s1s", "1,5s", "1.s", ".5s", "1e3", "+5s", "1m-5s", "٣s", "inf"),
        *("9" * 400, float("inf"), float("nan"), 10**400, True, None, [30], {}),
    ],
    ids=repr,
)
def test_anything_else_is_no_duration(value: object) -> None:
    with pytest.raises(InvalidInput, match="is not a duration") as caught:
        parse_duration(value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", ["-30s", "-1h30m", -1, -0.5])
def test_a_negative_duration_is_called_so(value: object) -> None:
    with pytest.raises(InvalidInput, match="is a negative duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (30, "30s"), (90, "1m30s"), (5400, "1h30m"), (86400, "1d"), (0.0005, "0.0005s")],
)
def test_a_duration_is_written_as_short_as_can_be(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=10**12))
def test_what_is_written_is_read_as_the_same_duration(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.text(alphabet="0123456789.dhms ", max_size=12))
def test_the_pattern_of_the_json_schema_is_what_is_read(text: str) -> None:
    try:
        parse_duration(text)
        read = True
    except InvalidInput:
        read = False
    assert (re.search(durations.PATTERN, text.strip()) is not None) == read


@pytest.mark.parametrize(
    ("text", "size"),
    [("65536", 65536), (65536, 65536), ("64KiB", 65536), ("10MiB", 10485760), ("10 MB", 10**7), ("1GiB", 2**30)],
)
def test_a_size_is_read_in_bytes(text: object, size: int) -> None:
    assert parse_size(text) == size
    if isinstance(text, str):
        assert re.search(sizes.PATTERN, text)


@pytest.mark.parametrize("value", ["", "MiB", "10MO", "1.5MiB", "-1", -1, 1.5, True, None, "9" * 20], ids=repr)
def test_anything_else_is_no_size(value: object) -> None:
    with pytest.raises(InvalidInput, match="is not a size"):
        parse_size(value)
