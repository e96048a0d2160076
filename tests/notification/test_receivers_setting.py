"""The setting ``notification.receivers``: what is read, what is refused and where, and what is never shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from citadel_consul.config.receivers import CommandReceiver, LogReceiver, WebhookReceiver
from citadel_consul.config.settings import Settings, load_settings
from citadel_consul.core.notice import Transition
from citadel_consul.errors import InvalidInput

SECRET = "T0K3N"
URL = f"https://hooks.example.org/services/{SECRET}"


def read(folder: Path, receivers: Any) -> Settings:
    path = folder / "orchestrator.yaml"
    path.write_text(yaml.safe_dump({"notification": {"receivers": receivers}}, sort_keys=False))
    return load_settings({}, {}, path)


def test_without_receivers_notices_go_into_the_log() -> None:
    (only,) = load_settings({}, {}).receivers.items
    assert isinstance(only, LogReceiver)


def test_an_empty_list_means_nobody(tmp_path: Path) -> None:
    assert read(tmp_path, []).receivers.items == ()


def test_each_kind_is_read_with_its_fields(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        [
            {
                "name": "chat",
                "webhook": URL,
                "template": "slack",
                "headers": {"X-Team": "data", "X-Key": {"file": "key"}},
                "token_file": "/etc/token",
                "timeout": "3s",
                "when": ["gave_up", "closed"],
            },
            {"name": "moved", "webhook_file": "secrets/url"},
            {"name": "page", "command": ["/usr/bin/page", "--team", "data"], "timeout": 5},
            {"name": "log", "log": True},
        ],
    )
    chat, moved, page, log = settings.receivers.items
    assert isinstance(chat, WebhookReceiver)
    assert (chat.url, chat.template, chat.timeout_seconds) == (URL, "slack", 3.0)
    assert chat.headers == {"X-Team": "data", "X-Key": tmp_path / "key"}
    assert chat.token_file == Path("/etc/token")
    assert chat.when == {Transition.GAVE_UP, Transition.CLOSED}
    assert isinstance(moved, WebhookReceiver)
    assert moved.url_file == tmp_path / "secrets" / "url"
    assert moved.when == set(Transition)
    assert page == CommandReceiver(
        name="page", when=frozenset(Transition), command=("/usr/bin/page", "--team", "data"), timeout_seconds=5.0
    )
    assert isinstance(log, LogReceiver)


def test_no_secret_is_shown_by_citadel_config_or_a_traceback(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        [
            {"name": "chat", "webhook": URL, "headers": {"Authorization": SECRET}},
            {"name": "page", "command": ["/usr/bin/page", SECRET]},
        ],
    )
    (shown,) = [row.value for row in settings.origins() if row.name == "notification.receivers"]
    assert shown == "chat (webhook https://hooks.example.org/…), page (command /usr/bin/page)"
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings.receivers)


def webhook(**fields: Any) -> list[Any]:
    return [{"name": "a", "webhook": URL, **fields}]


@pytest.mark.parametrize(
    ("receivers", "place", "message"),
    [
        ("slack", "", "is not a list"),
        ({"name": "a", "log": True}, "", "is not a list"),
        ([{"name": f"r{n}", "log": True} for n in range(51)], "", "more than 50"),
        (["slack"], "[0]", "is not a receiver"),
        ([{"name": "a"}], "[0]", "says not how to notify"),
        ([{"name": "a", "log": True, "webhook": URL}], "[0]", "has webhook and log"),
        ([{"log": True}], "[0]", "has no name"),
        ([{"name": "Not a label", "log": True}], "[0].name", "not a valid name"),
        ([{"name": "a", "log": True}, {"name": "a", "log": True}], "", "two receivers are called 'a'"),
        ([{"name": "a", "log": False}], "[0].log", "false says nothing"),
        ([{"name": "a", "log": True, "timeout": "3s"}], "[0].timeout", "unknown key"),
        ([{"name": "ok", "log": True}, *webhook(tmplate="slack")], "[1].tmplate", "unknown key"),
        (webhook(webhook="ftp://h/x"), "[0].webhook", "cannot be ftp://"),
        (webhook(webhook="hooks.example.org/T0K3N"), "[0].webhook", "is not a URL"),
        (webhook(webhook="https:///T0K3N"), "[0].webhook", "is not a URL"),
        (webhook(webhook="https://h:99999/T0K3N"), "[0].webhook", "is not a URL"),
        (webhook(webhook="https://u:T0K3N@h/x"), "[0].webhook", "credentials"),
        (webhook(webhook="https://h/x#T0K3N"), "[0].webhook", "fragment"),
        (webhook(webhook="http://h/x", token_file="/t"), "[0].webhook", "in the clear"),
        (webhook(webhook="http://h/x", headers={"X-Key": {"file": "/k"}}), "[0].webhook", "in the clear"),
        (webhook(token_file="/t", headers={"authorization": "x"}), "[0].headers", "so is this header"),
        (webhook(headers=["x"]), "[0].headers", "is not a mapping"),
        (webhook(headers={"a b": "x"}), "[0].headers.a b", "not the name of a header"),
        (webhook(headers={"X-A": "T0K3N\r\nX-B: c"}), "[0].headers.X-A", "control character"),
        (webhook(headers={"X-A": "T0K3N€"}), "[0].headers.X-A", "beyond ASCII"),
        (webhook(headers={"X-A": {"path": "x"}}), "[0].headers.X-A", "neither text nor a file"),
        (webhook(template="../../etc/passwd"), "[0].template", "not the name of a template"),
        (webhook(timeout="1h"), "[0].timeout", "too long"),
        (webhook(when=[]), "[0].when", "is not a list of what"),
        (webhook(when=["opend"]), "[0].when", "did you mean opened?"),
        ([{"name": "a", "command": "page --now"}], "[0].command", "not a list of arguments"),
        ([{"name": "a", "command": []}], "[0].command", "not a list of arguments"),
        ([{"name": "a", "command": ["page", ""]}], "[0].command", "is empty"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_without_its_secret(
    tmp_path: Path, receivers: Any, place: str, message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, receivers)
    text = str(caught.value)
    assert f"notification.receivers{place}: " in text
    assert message in text
    assert "T0K3N" not in text


def test_a_problem_names_the_line_of_its_receiver(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.yaml"
    path.write_text(
        "notification:\n  receivers:\n    - {name: a, log: true}\n    - name: b\n      webhook: gopher://h\n"
    )
    with pytest.raises(InvalidInput) as caught:
        load_settings({}, {}, path)
    (problem,) = caught.value.problems
    assert problem.place == f"{path}:5: notification.receivers[1].webhook"


def test_all_problems_of_all_receivers_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, [{"name": "A", "log": True}, {"name": "b", "command": []}, {"log": True}])
    assert len(caught.value.problems) == 3


def test_receivers_are_no_flag(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such setting"):
        load_settings({"notification_receivers": "x"}, {})
