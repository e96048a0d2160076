"""The bodies of webhooks: each held against what its reader requires."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from incidents import closed, frozen, incident, notice

from citadel_consul.core.incident import IncidentState
from citadel_consul.core.notice import Notice, Transition
from citadel_consul.errors import InvalidInput
from citadel_consul.notification.body import body_of

STRING = {"type": "string"}
STRINGS = {"type": "object", "additionalProperties": STRING}
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"}
# From Alertmanager's own API description (postableAlerts) and its documentation of webhooks.
POSTABLE_ALERTS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["labels"],
        "additionalProperties": False,
        "properties": {
            "labels": {**STRINGS, "required": ["alertname"]},
            "annotations": STRINGS,
            "startsAt": TIME,
            "endsAt": TIME,
            "generatorURL": STRING,
        },
    },
}
WEBHOOK_ALERT = {
    "type": "object",
    "required": ["status", "labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint"],
    "properties": {
        "status": {"enum": ["firing", "resolved"]},
        "labels": STRINGS,
        "annotations": STRINGS,
        "startsAt": TIME,
        "endsAt": TIME,
        "generatorURL": STRING,
        "fingerprint": STRING,
    },
}
WEBHOOK = {
    "type": "object",
    "required": [
        "version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels", "commonLabels",
        "commonAnnotations", "externalURL", "alerts",
    ],
    "properties": {
        "version": {"const": "4"},
        "groupKey": STRING,
        "truncatedAlerts": {"type": "integer"},
        "status": {"enum": ["firing", "resolved"]},
        "receiver": STRING,
        "groupLabels": STRINGS,
        "commonLabels": STRINGS,
        "commonAnnotations": STRINGS,
        "externalURL": STRING,
        "alerts": {"type": "array", "minItems": 1, "items": WEBHOOK_ALERT},
    },
}  # fmt: skip
SLACK = {
    "type": "object",
    "required": ["text"],
    "properties": {
        "text": STRING,
        "attachments": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "color": {"enum": ["good", "warning", "danger"]},
                    "fallback": STRING,
                    "footer": STRING,
                    "fields": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["title", "value"],
                            "properties": {"title": STRING, "value": STRING, "short": {"type": "boolean"}},
                        },
                    },
                },
            },
        },
    },
}
NASTY = 'said "no" \\ </script> & {{ 7*7 }} \u2028 …'
NOTICES = [
    notice(),
    notice(Transition.GAVE_UP, incident(state=IncidentState.GAVE_UP, attempts=3)),
    notice(Transition.QUARANTINED, incident(state=IncidentState.QUARANTINED)),
    notice(Transition.CLOSED),
    notice(about=frozen()),
    notice(about=incident(detail=NASTY, affected=())),
]


def body(about: Notice, template: str, *directories: Path) -> Any:
    return json.loads(body_of(about, template, directories))


@pytest.mark.parametrize("about", NOTICES, ids=lambda about: about.id)
@pytest.mark.parametrize(
    ("template", "schema"),
    [("alertmanager", POSTABLE_ALERTS), ("alertmanager-webhook", WEBHOOK), ("slack", SLACK), ("json", {})],
)
def test_every_notice_is_what_its_reader_requires(about: Notice, template: str, schema: dict[str, Any]) -> None:
    made = body(about, template)
    jsonschema.validate(made, schema)
    if about.incident.detail == NASTY and template != "slack":
        assert "{{ 7*7 }}" in json.dumps(made, ensure_ascii=False)


def test_the_alerts_of_one_incident_have_the_same_labels_from_beginning_to_end() -> None:
    life = [
        notice(),
        notice(Transition.GAVE_UP, incident(state=IncidentState.GAVE_UP, attempts=3), automatic=False),
        notice(Transition.CLOSED, closed(attempts=4)),
    ]
    labels = [body(about, "alertmanager")[0]["labels"] for about in life]
    assert labels == [labels[0]] * 3
    assert labels[0] == {"alertname": "CitadelIncident", "stack": "shop", "service": "qdrant", "severity": "critical"}


def test_an_alert_fires_until_its_end_is_told() -> None:
    def when(text: str) -> datetime:
        return datetime.fromisoformat(text)

    opened, ended = body(notice(), "alertmanager")[0], body(notice(Transition.CLOSED), "alertmanager")[0]
    assert (when(opened["endsAt"]) - when(opened["startsAt"])).days == 7
    assert opened["startsAt"] == ended["startsAt"]
    assert (when(ended["endsAt"]) - when(ended["startsAt"])).total_seconds() == 12.0
    assert body(notice(Transition.CLOSED), "alertmanager-webhook")["status"] == "resolved"


def test_slack_gets_its_three_special_characters_escaped_and_a_colour_that_says_how_bad_it_is() -> None:
    made = body(notice(about=incident(detail="<!channel> & co")), "slack")
    assert made["text"] == "[shop] qdrant fails: &lt;!channel&gt; &amp; co"
    colours = [body(about, "slack")["attachments"][0]["color"] for about in NOTICES[:5]]
    assert colours == ["warning", "danger", "danger", "good", "danger"]


def test_the_plain_body_holds_everything_that_is_known() -> None:
    made = body(notice(), "json")
    assert made["incident"]["affected"] == ["embedding-service", "api-gateway"]
    assert made["incident"]["operations"] == ["20250715T143000000001-qdrant"]
    assert made["leader"] == "n1:8000"
    assert made["incident"]["opened_at"] == "2025-07-15T14:30:00.000Z"
    assert body(notice(about=frozen()), "json")["service"] is None


def test_a_template_of_ones_own_goes_before_the_shipped_one_and_can_extend_it(tmp_path: Path) -> None:
    own = tmp_path / "notification"
    own.mkdir()
    (own / "teams.json.j2").write_text('{"text": {{ notice.title|tojson }}, "n": {{ notice.incident.attempts }}}')
    (own / "slack.json.j2").write_text('{"mine": {{ notice.stack|tojson }}}')
    assert body(notice(), "teams", tmp_path) == {"text": notice().title, "n": 1}
    assert body(notice(), "slack", tmp_path) == {"mine": "shop"}
    assert "alertname" in body(notice(), "alertmanager", tmp_path)[0]["labels"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('{"text": "{{ notice.title }}', "not JSON"),
        ("{{ notice.titel }}", "titel"),
        ("{% if %}", "not a Jinja template"),
        ("{{ notice|nosuch }}", "nosuch"),
        ("{{ ''.__class__.__mro__|tojson }}", "__class__"),
    ],
)
def test_a_template_that_does_not_do_is_bad_input_with_its_name(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "notification").mkdir()
    (tmp_path / "notification" / "bad.json.j2").write_text(source)
    with pytest.raises(InvalidInput, match=message) as caught:
        body_of(notice(), "bad", (tmp_path,))
    assert "bad" in str(caught.value)


def test_a_template_that_is_not_there_is_bad_input() -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        body_of(notice(), "nowhere")
