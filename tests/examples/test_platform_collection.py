"""The vector collection finds the nearest points and keeps them through stops, crashes and full disks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import ai_platform  # noqa: F401 - makes the example importable
import numpy as np
import pytest
from services.collection import Collection, CorruptLog, Point, PointId, normalised
from services.failures import Rejected


def point(identity: PointId, *numbers: float, **payload: object) -> Point:
    return Point(identity, normalised(numbers, len(numbers)), payload)


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    made = Collection(tmp_path, 2)
    yield made
    made.close()


def reopened(collection: Collection, folder: Path) -> Collection:
    collection.close()
    return Collection(folder, collection.size)


def found(collection: Collection, *vector: float, limit: int = 10) -> list[PointId]:
    return [hit.id for hit in collection.search(vector, limit, {})]


def test_the_nearest_point_comes_first_whatever_its_length(collection: Collection) -> None:
    collection.upsert([point("east", 100.0, 0.0), point("north", 0.0, 1.0), point("north-east", 1.0, 1.0)])
    hits = collection.search([1.0, 0.1], 2, {})
    assert [hit.id for hit in hits] == ["east", "north-east"]
    assert hits[0].score == pytest.approx(0.995, abs=1e-3)


def test_search_agrees_with_a_plain_computation_of_cosines(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    vectors = random.normal(size=(300, 8))
    collection = Collection(tmp_path, 8)
    collection.upsert([Point(number, normalised(vector, 8), {}) for number, vector in enumerate(vectors)])
    question = random.normal(size=8)
    cosines = vectors @ question / np.linalg.norm(vectors, axis=1) / np.linalg.norm(question)
    assert [hit.id for hit in collection.search(question, 5, {})] == list(np.argsort(-cosines)[:5])
    collection.close()


def test_a_filter_leaves_only_what_matches(collection: Collection) -> None:
    collection.upsert([point(1, 1.0, 0.0, document="a"), point(2, 1.0, 0.0, document="b")])
    assert [hit.id for hit in collection.search([1.0, 0.0], 5, {"document": "b"})] == [2]
    assert collection.ids_where({"document": "a"}) == [1]


def test_an_upsert_of_the_same_id_replaces_the_point(collection: Collection) -> None:
    collection.upsert([point("a", 1.0, 0.0, version=1)])
    collection.upsert([point("a", 0.0, 1.0, version=2)])
    assert len(collection) == 1
    hit = collection.search([0.0, 1.0], 1, {})[0]
    assert hit.payload == {"version": 2}
    assert hit.score == pytest.approx(1.0)


def test_deleting_one_point_leaves_the_others_findable(collection: Collection) -> None:
    collection.upsert([point(number, 1.0, float(number)) for number in range(5)])
    assert collection.delete([1, 1, 99]) == 1
    assert sorted(map(int, found(collection, 1.0, 0.0))) == [0, 2, 3, 4]
    assert found(collection, 1.0, 4.0, limit=1) == [4]


def test_points_and_deletions_outlive_a_stop(collection: Collection, tmp_path: Path) -> None:
    collection.upsert([point("kept", 1.0, 0.0, text="ü"), point("gone", 0.0, 1.0)])
    collection.delete(["gone"])
    again = reopened(collection, tmp_path)
    assert [(hit.id, hit.payload) for hit in again.search([1.0, 0.0], 5, {})] == [("kept", {"text": "ü"})]
    again.close()


def test_a_torn_last_line_is_cut_off_and_writing_goes_on(collection: Collection, tmp_path: Path) -> None:
    collection.upsert([point("whole", 1.0, 0.0)])
    with (tmp_path / "points.jsonl").open("ab") as log:
        log.write(b'{"id":"torn","vector":"AAC')
    again = reopened(collection, tmp_path)
    again.upsert([point("after", 0.0, 1.0)])
    last = reopened(again, tmp_path)
    assert sorted(map(str, found(last, 1.0, 1.0))) == ["after", "whole"]
    last.close()


def test_a_broken_line_in_the_middle_is_reported_with_its_place(collection: Collection, tmp_path: Path) -> None:
    collection.upsert([point("first", 1.0, 0.0)])
    collection.close()
    log = tmp_path / "points.jsonl"
    log.write_bytes(b'{"id": "half"}\n' + log.read_bytes())
    with pytest.raises(CorruptLog, match="line 1"):
        Collection(tmp_path, 2)


def test_a_log_that_is_mostly_history_is_rewritten(collection: Collection, tmp_path: Path) -> None:
    collection.upsert([point("same", 1.0, float(number)) for number in range(1200)])
    before = collection.log_bytes
    again = reopened(collection, tmp_path)
    assert again.log_bytes < before / 1000
    again.upsert([point("more", 1.0, 0.0)])
    last = reopened(again, tmp_path)
    assert found(last, 1.0, 1199.0) == ["same", "more"]
    last.close()


def test_a_write_that_the_disk_refuses_leaves_nothing_behind(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.upsert([point("before", 1.0, 0.0)])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        with pytest.raises(OSError, match="No space"):
            collection.upsert([point("refused", 0.0, 1.0)])
    assert len(collection) == 1
    collection.upsert([point("after", 1.0, 1.0)])
    again = reopened(collection, tmp_path)
    assert sorted(map(str, found(again, 1.0, 0.0))) == ["after", "before"]
    again.close()


@pytest.mark.parametrize("vector", [[1.0], [1.0, 2.0, 3.0], [0.0, 0.0], [float("nan"), 1.0], ["a", "b"], None])
def test_a_vector_that_has_no_direction_is_rejected(collection: Collection, vector: list[float]) -> None:
    with pytest.raises(Rejected, match="vector"):
        collection.search(vector, 1, {})
