"""The journal's native protocol: fields, priorities, messages of several lines, and a journal that is away."""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from citadel_consul.telemetry import logs
from citadel_consul.telemetry.fields import about
from citadel_consul.telemetry.journal import JournalHandler, encode, is_journal, priority


class Journal:
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(5)

    def entry(self) -> dict[str, str]:
        """The next entry, read as journald reads it."""
        raw, found = self.socket.recv(1 << 20), {}
        while raw:
            line, _, rest = raw.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                length = struct.unpack("<Q", rest[:8])[0]
                value, rest = rest[8 : 8 + length], rest[9 + length :]
            found[name.decode()] = value.decode()
            raw = rest
        return found


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "socket")
    yield journal
    journal.socket.close()


@pytest.fixture
def handler(journal: Journal) -> Iterator[JournalHandler]:
    handler = JournalHandler({"SYSLOG_IDENTIFIER": "citadel-agent", "CITADEL_NODE": "n1"}, journal.path)
    yield handler
    handler.close()


def record(message: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("citadel_consul.agent.agent", level, "/x/agent.py", 12, message, (), None, "run")


def test_a_record_is_an_entry_with_its_fields(journal: Journal, handler: JournalHandler) -> None:
    handler.emit(record("the lock is lost"))
    assert journal.entry() == {
        "SYSLOG_IDENTIFIER": "citadel-agent",
        "CITADEL_NODE": "n1",
        "MESSAGE": "the lock is lost",
        "PRIORITY": "4",
        "LOGGER": "citadel_consul.agent.agent",
        "CODE_FILE": "agent.py",
        "CODE_LINE": "12",
        "CODE_FUNC": "run",
    }


def test_what_a_record_is_about_is_in_the_journal_and_in_json(journal: Journal, handler: JournalHandler) -> None:
    said = record("store@n1 is ready")
    said.__dict__.update(about(service="store", operation=None, event="ready"))
    handler.emit(said)
    entry = journal.entry()
    assert (entry["CITADEL_SERVICE"], entry["CITADEL_EVENT"]) == ("store", "ready")
    assert "CITADEL_OPERATION" not in entry
    assert json.loads(logs.JsonFormatter().format(said))["service"] == "store"


def test_a_message_of_several_lines_stays_one_entry(journal: Journal, handler: JournalHandler) -> None:
    handler.emit(record("Traceback:\n  PRIORITY=0\nValueError"))
    entry = journal.entry()
    assert entry["MESSAGE"] == "Traceback:\n  PRIORITY=0\nValueError"
    assert entry["PRIORITY"] == "4"


def test_a_value_with_a_newline_is_preceded_by_its_length() -> None:
    assert encode({"A": "x", "B": "y\nz"}) == b"A=x\nB\n\x03\0\0\0\0\0\0\0y\nz\n"


@pytest.mark.parametrize(
    ("level", "number"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_levels_have_the_priorities_of_syslog(level: int, number: int) -> None:
    assert priority(level) == number


def test_what_the_journal_does_not_take_goes_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = JournalHandler({}, str(tmp_path / "nobody"))
    handler.emit(record("one\ntwo", logging.ERROR))
    handler.close()
    assert capsys.readouterr().err == "<3>one\n<3>two\n"


def test_only_a_stream_that_is_the_journals_is_taken_for_it(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        status = os.fstat(file.fileno())
        assert is_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, file.fileno())
        assert not is_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"}, file.fileno())
        assert not is_journal({}, file.fileno())


@pytest.mark.parametrize(("style", "native"), [("text", True), ("json", False)])
def test_json_is_written_as_lines_also_into_the_journal(
    style: str, native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        monkeypatch.setattr("sys.stderr", stream)
        try:
            logs.configure("INFO", style)
            assert isinstance(root.handlers[0], JournalHandler) is native
            root.handlers[0].close()
        finally:
            root.handlers[:] = before
            root.setLevel(level)
