"""The dockerd that the lab started is stopped by its process id, and only if that is still the same process."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from citadel_lab import engine  # type: ignore[import-not-found,unused-ignore]


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "dockerd.json"
    monkeypatch.setattr(engine, "RECORD", path)
    return path


def test_the_engine_that_was_started_is_stopped(child: "subprocess.Popen[bytes]", record: Path) -> None:
    record.write_text(json.dumps({"pid": child.pid, "start": engine.process_start(child.pid)}))
    assert engine.stop_engine() is True
    assert child.wait(timeout=5) == -15
    assert not record.exists()


def test_another_process_with_the_number_is_left_alone(child: "subprocess.Popen[bytes]", record: Path) -> None:
    record.write_text(json.dumps({"pid": child.pid, "start": 1}))
    assert engine.stop_engine() is False
    assert child.poll() is None
    assert not record.exists()


def test_without_a_record_there_is_nothing_to_stop(record: Path) -> None:
    assert engine.stop_engine() is False


def test_a_process_that_ended_has_no_start(child: "subprocess.Popen[bytes]") -> None:
    assert engine.process_start(child.pid) is not None
    child.kill()
    child.wait()
    assert engine.process_start(child.pid) is None


def test_a_zombie_counts_as_ended(child: "subprocess.Popen[bytes]") -> None:
    child.kill()
    with Path(f"/proc/{child.pid}/stat").open() as stat:
        while stat.read().rpartition(")")[2].split()[0] != "Z":
            stat.seek(0)
    assert engine.process_start(child.pid) is None
