"""``citadel notify``: trying receivers, and listing what they were told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from consul_process import ConsulSpace
from incidents import incident, notice
from receiver import Receiver

from citadel_consul.cli.main import main
from citadel_consul.core.incident import IncidentState
from citadel_consul.core.notice import Transition
from citadel_consul.store.postings import POSTING, Delivery, DeliveryState, Posting


class Citadel:
    """Calls ``citadel notify`` in this process with a configuration file."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = folder / "orchestrator.yaml"
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Exit status, output, errors."""
        self._monkeypatch.setattr(sys, "argv", ["citadel", "notify", *words, "--config", str(self.config)])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        printed = self._capsys.readouterr()
        return status, printed.out, printed.err

    def receivers(self, *receivers: dict[str, Any]) -> None:
        self.config.write_text(yaml.safe_dump({"stack": "shop", "notification": {"receivers": list(receivers)}}))


@pytest.fixture
def citadel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Citadel:
    return Citadel(tmp_path, monkeypatch, capsys)


def test_every_receiver_gets_a_notice_that_says_it_is_a_test(citadel: Citadel, receiver: Receiver) -> None:
    citadel.receivers(
        {"name": "chat", "webhook": receiver.url, "template": "slack", "when": ["closed"]},
        {"name": "page", "command": [sys.executable, "-c", "import sys; sys.stdin.read()"]},
    )
    status, out, _ = citadel("test", "-o", "json")
    assert status == 0
    assert [(row["receiver"], row["result"]) for row in json.loads(out)["receivers"]] == [
        ("chat", "delivered"),
        ("page", "delivered"),
    ]
    (sent,) = receiver.notices
    assert sent["text"].startswith("[shop] TEST: ")


def test_one_receiver_can_be_tried_by_its_name(citadel: Citadel, receiver: Receiver) -> None:
    citadel.receivers(
        {"name": "a", "webhook": receiver.url}, {"name": "b", "webhook": receiver.url, "template": "alertmanager"}
    )
    status, out, _ = citadel("test", "b", "--transition", "closed")
    assert status == 0
    assert "delivered" in out
    (sent,) = receiver.notices
    assert sent[0]["labels"]["alertname"] == "CitadelRehearsal"


def test_a_receiver_that_fails_is_told_with_its_reason_and_sets_the_status(
    citadel: Citadel, receiver: Receiver
) -> None:
    receiver.answers = [404]
    citadel.receivers(
        {"name": "good", "webhook": receiver.url, "when": ["opened"]}, {"name": "bad", "command": ["/no"]}
    )
    status, out, err = citadel("test")
    assert status == 1
    assert "answered 404" in out
    assert "/no cannot be run" in out
    assert "not told: good, bad" in err
    assert "s3cret" not in out + err


def test_an_unknown_receiver_is_bad_input(citadel: Citadel) -> None:
    citadel.receivers({"name": "oncall", "log": True})
    status, _, err = citadel("test", "oncal")
    assert status == 2
    assert "did you mean oncall?" in err


def test_a_bad_template_is_bad_input_before_anything_is_sent(citadel: Citadel, receiver: Receiver) -> None:
    citadel.receivers({"name": "a", "webhook": receiver.url, "template": "teams"})
    status, _, err = citadel("test")
    assert status == 2
    assert "notification/teams.json.j2" in err
    assert not receiver.requests


@pytest.mark.consul
def test_the_list_shows_what_was_told_and_what_is_on_its_way(
    citadel: Citadel, consul: ConsulSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    citadel.receivers()
    monkeypatch.setenv("CONSUL_HTTP_ADDR", consul.address)
    monkeypatch.setenv("CITADEL_STACK", consul.stack)
    done, failed = Delivery(DeliveryState.DELIVERED, 1.0), Delivery(DeliveryState.FAILED, 1.0, "h answered 404")
    given_up = notice(Transition.GAVE_UP, incident(state=IncidentState.GAVE_UP, attempts=3))
    for posting in (
        Posting(notice(), {"chat": done, "page": failed}, 1),
        Posting(given_up, {"chat": done, "page": Delivery()}, 2),
    ):
        consul.request("PUT", f"/v1/kv/{consul.prefix}notices/{posting.notice.id}", POSTING.encode(posting))
    consul.request("PUT", f"/v1/kv/{consul.prefix}notices/odd", b"not JSON")
    status, out, _ = citadel("list")
    assert status == 0
    assert [line.strip() for line in out.splitlines() if line.startswith(" ")] == [
        "chat: delivered",
        "page: failed: h answered 404",
        "chat: delivered",
        "page: pending",
    ]
    _, out, _ = citadel("list", "-n", "1", "-o", "json")
    (last,) = json.loads(out)["notices"]
    assert last["transition"] == "gave_up"
    assert last["receivers"]["page"]["state"] == "pending"
