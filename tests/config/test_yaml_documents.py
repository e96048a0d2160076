"""Reading YAML: values, merges, lines, and input that means harm."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_consul.config import source, yamltree
from citadel_consul.config.source import format_path, parse_document
from citadel_consul.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("22:22", "22:22"),
        ("1_000", "1_000"),
        ("2025-01-01", "2025-01-01"),
        ("true", True),
        ("True", True),
        ("false", False),
        ("12", 12),
        ("-3", -3),
        ("0640", 640),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("! 12", 12),
        ("!!int 12", 12),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("{a: 1}", {"a": 1}),
        ("[a, [b]]", ["a", ["b"]]),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    document = parse_document(f"key: {text}", "f.yaml")
    assert document.data == {"key": value}
    assert type(document.data["key"]) is type(value) or isinstance(value, int | float)
    assert document.findings == ()


def test_numbers_remember_how_they_were_written() -> None:
    data = parse_document("mode: 0640\nversion: 1.10\n", "f.yaml").data
    assert [getattr(value, "text", None) for value in data.values()] == ["0640", "1.10"]


def test_keys_are_text() -> None:
    assert parse_document("{1: a, true: b, null: c}", "f.yaml").data == {"1": "a", "true": "b", "null": "c"}


def test_a_merge_fills_in_what_is_not_given() -> None:
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz:\n  c: 3\n  <<: [*x, *y]\n"
    assert parse_document(text, "f.yaml").data["z"] == {"a": 1, "b": 1, "c": 3}


def test_a_quoted_merge_key_is_a_key() -> None:
    assert parse_document("a: {'<<': {b: 1}}", "f.yaml").data == {"a": {"<<": {"b": 1}}}


def test_every_key_and_item_knows_its_line() -> None:
    document = parse_document("a:\n  b:\n\n    - 1\n    - c: 2\n      d: |\n        x\n", "f.yaml")
    paths = [("a",), ("a", "b"), ("a", "b", 0), ("a", "b", 1, "c"), ("a", "b", 1, "d")]
    assert [document.line(path) for path in paths] == [1, 2, 4, 5, 6]
    assert document.line(("a", "b", 7, "x")) == 2
    assert document.line(("nowhere",)) == 1


def test_a_value_that_was_merged_is_placed_where_it_is_written() -> None:
    document = parse_document("x: &x\n  a: 1\ny:\n  <<: *x\n", "f.yaml")
    assert document.line(("y", "a")) == 2


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "~\n", "{}\n"])
def test_an_empty_document_is_an_empty_mapping(text: str) -> None:
    assert parse_document(text, "f.yaml").data == {}


def test_paths_are_readable() -> None:
    assert format_path(("services", "a-b", "checks", 0, "http")) == "services.a-b.checks[0].http"
    assert format_path(("meta", "a b", "c.d")) == 'meta["a b"]["c.d"]'


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert source.decode(b"\xef\xbb\xbfa: 1", "f.yaml") == "a: 1"


def test_text_in_another_encoding_is_refused_with_its_line() -> None:
    with pytest.raises(InvalidInput, match=r"f\.yaml:2: not UTF-8 text"):
        source.decode("a: 1\nb: \u00e9\n".encode("latin-1"), "f.yaml")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as stream:
        stream.truncate(source.MAX_BYTES + 1)
    with pytest.raises(InvalidInput, match=r"larger than 4 MiB"):
        source.read_file(path)
    with pytest.raises(InvalidInput, match=r"larger than 4 MiB"):
        parse_document("#" * (source.MAX_BYTES + 1), "f.yaml")


def test_a_file_can_come_through_a_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"a: 1\n")
        os.close(writing)
        assert source.read_file(Path(f"/proc/self/fd/{reading}")) == "a: 1\n"
    finally:
        os.close(reading)


def test_the_bounds_hold_to_the_very_value() -> None:
    deep = "a: " + "[" * (yamltree.MAX_DEPTH - 1) + "]" * (yamltree.MAX_DEPTH - 1)
    assert parse_document(deep, "f.yaml").findings == ()
    with pytest.raises(InvalidInput, match="levels deep"):
        parse_document(deep.replace("[", "[[", 1).replace("]", "]]", 1), "f.yaml")


def test_depth_counts_through_aliases() -> None:
    half = yamltree.MAX_DEPTH // 2
    text = f"a: &a {'[' * half}{']' * half}\nb: {'[' * half}*a{']' * half}\n"
    with pytest.raises(InvalidInput, match="levels deep"):
        parse_document(text, "f.yaml")


@given(st.text(max_size=60))
def test_no_text_makes_anything_but_a_document_or_problems(text: str) -> None:
    try:
        problems = parse_document(text, "f.yaml").problems([])
    except InvalidInput as error:
        problems = list(error.problems)
    assert all(problem.place.startswith("f.yaml") for problem in problems)


plain = st.recursive(
    st.booleans() | st.integers(-(10**15), 10**15) | st.text(st.characters(codec="utf-8", exclude_categories=["C"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcxyz", min_size=1), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abcxyz", min_size=1), plain, max_size=4), st.sampled_from([None, 2]))
def test_json_is_read_as_what_it_is(data: dict[str, object], indent: int | None) -> None:
    document = parse_document(json.dumps(data, ensure_ascii=False, indent=indent), "f.yaml")
    assert document.data == data
    assert document.findings == ()
