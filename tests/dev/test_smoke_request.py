"""smoke.yaml: what it may say, and what counts as an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from citadel_consul.cli.smoke import Reply, Smoke, load_smoke, unmet
from citadel_consul.errors import InvalidInput


def _load(tmp_path: Path, text: str) -> Smoke | None:
    path = tmp_path / "smoke.yaml"
    path.write_text(text)
    return load_smoke(path)


def test_there_need_not_be_one(tmp_path: Path) -> None:
    assert load_smoke(tmp_path / "smoke.yaml") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: GET", "url"),
        ("url: 127.0.0.1:8080", "not an http or https URL"),
        ("url: 'http://[::1'", "not a URL"),
        ("url: http://127.0.0.1/\ntimeout_seconds: 0", "timeout_seconds"),
        ("url: http://127.0.0.1/\nexpected: 200", "expected"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=r"smoke\.yaml") as raised:
        _load(tmp_path, text)
    assert message in str(raised.value)


def test_it_reads_as_a_line_for_a_shell() -> None:
    smoke = Smoke.model_validate({"url": "http://127.0.0.1:1/x", "json": {"a": "it's"}, "headers": {"x-y": "z"}})
    assert smoke.as_curl() == (
        "curl -s http://127.0.0.1:1/x -H 'x-y: z' -H 'Content-Type: application/json' -d '{\"a\":\"it'\"'\"'s\"}'"
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"answer": "yes", "path": ["a", {"service": "b"}]}, []),
        ({"answer": "", "path": ["a", "b"]}, ["the answer's field 'answer' is empty"]),
        ({"path": ["a", "b"]}, ["the answer's field 'answer' is missing"]),
        ({"answer": 0.0, "path": ["a", "a", "a"]}, ["it passed through 1 services instead of 2"]),
        (None, ["the answer's field 'answer' is missing", "it passed through 0 services instead of 2"]),
    ],
)
def test_an_answer_needs_its_fields_and_its_hops(data: object, expected: list[str]) -> None:
    smoke = Smoke(url="http://127.0.0.1/", expect_fields=("answer",), min_hops=2)
    assert list(unmet(smoke, Reply(200, data, 0.1), "")) == expected


def test_another_status_is_shown_with_the_answer() -> None:
    smoke = Smoke(url="http://127.0.0.1/", expect_fields=("answer",))
    assert list(unmet(smoke, Reply(503, None, 0.1), "no upstream")) == ["HTTP 503 instead of 200: no upstream"]
