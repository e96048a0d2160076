"""The folder that the nodes are given, and the checksum that tells whether a node is up to date."""

from pathlib import Path

import pytest
from citadel_lab.payload import checksum, mirror  # type: ignore[import-not-found,unused-ignore]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "one").write_text("1")
    (folder / "two").write_text("2")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_mirror_holds_exactly_what_it_should(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    mirror({"a/one": source / "one", "a/two": source / "two"}, target)
    assert contents(target) == {"a/one": "1", "a/two": "2"}
    (source / "two").write_text("changed")
    (target / "sum").write_text("kept")
    mirror({"b/two": source / "two"}, target, keep=["sum"])
    assert contents(target) == {"b/two": "changed", "sum": "kept"}
    assert not (target / "a").exists()


def test_a_mirror_leaves_alone_what_did_not_change(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    mirror({"one": source / "one", "two": source / "two"}, target)
    before = {name: (target / name).stat().st_ino for name in ("one", "two")}
    times = {name: (target / name).stat().st_mtime_ns for name in ("one", "two")}
    (source / "two").write_text("changed")
    mirror({"one": source / "one", "two": source / "two"}, target)
    assert (target / "one").stat().st_mtime_ns == times["one"]
    assert (target / "two").stat().st_mtime_ns != times["two"]
    # Running nodes have the folder mounted: the files must stay the same files.
    assert {name: (target / name).stat().st_ino for name in ("one", "two")} == before


def test_a_mirror_keeps_what_is_executable_so(source: Path, tmp_path: Path) -> None:
    (source / "one").chmod(0o755)
    mirror({"one": source / "one"}, tmp_path / "target")
    assert (tmp_path / "target" / "one").stat().st_mode & 0o111


def test_a_mirror_notices_that_a_file_became_executable(source: Path, tmp_path: Path) -> None:
    mirror({"one": source / "one"}, tmp_path / "target")
    (source / "one").chmod(0o755)
    mirror({"one": source / "one"}, tmp_path / "target")
    assert (tmp_path / "target" / "one").stat().st_mode & 0o111


def test_the_checksum_sees_content_name_and_executable_bit(source: Path) -> None:
    sums = [checksum(source)]
    (source / "one").write_text("!")
    sums.append(checksum(source))
    (source / "one").rename(source / "three")
    sums.append(checksum(source))
    (source / "three").chmod(0o755)
    sums.append(checksum(source))
    assert len(set(sums)) == 4


def test_the_checksum_is_of_what_counts(source: Path) -> None:
    before = checksum(source)
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "x.pyc").write_bytes(b"\0")
    (source / "note").write_text("left out")
    assert checksum(source, without={"note"}) == before
    assert checksum(source) != before


def test_where_a_file_ends_cannot_be_shifted(tmp_path: Path) -> None:
    for name, texts in (("a", ("1", "23")), ("b", ("12", "3"))):
        (tmp_path / name).mkdir()
        for file, text in zip(("x", "y"), texts, strict=True):
            (tmp_path / name / file).write_text(text)
    assert checksum(tmp_path / "a") != checksum(tmp_path / "b")
