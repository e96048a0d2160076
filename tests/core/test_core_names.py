"""Names suit a KV key, a DNS label, a file and a unit at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_consul.core.names import MAX_LABEL, is_label


@pytest.mark.parametrize("name", ["a", "0", "redis", "api-gateway", "a--b", "9lives", "a" * MAX_LABEL])
def test_a_dns_label_in_lower_case_is_a_name(name: str) -> None:
    assert is_label(name)


@pytest.mark.parametrize(
    "name",
    ["", "-a", "a-", "-", "A", "aB", "a_b", "a.b", "a/b", "a b", " a", "a\n", "a@n1", "ä", "٣", "a\0", "a" * 64, ".."],
    ids=repr,
)
def test_anything_else_is_not(name: str) -> None:
    assert not is_label(name)


@given(st.text(alphabet="abc019-", min_size=1, max_size=70))
def test_inner_hyphens_and_the_length_are_all_that_can_be_wrong_with_the_right_letters(name: str) -> None:
    assert is_label(name) == (len(name) <= 63 and name[0] != "-" and name[-1] != "-")
