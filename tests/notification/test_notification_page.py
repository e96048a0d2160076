"""docs/notifications.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

from incidents import notice

from citadel_consul.config.receivers import WebhookReceiver
from citadel_consul.config.settings import load_settings
from citadel_consul.core.notice import Transition
from citadel_consul.notification.document import document_of
from citadel_consul.orchestrator.gossip import MOST_BYTES
from citadel_consul.orchestrator.notifying import Patience
from citadel_consul.orchestrator.outbox import KEPT

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "notifications.md").read_text()


def test_its_example_is_good(tmp_path: Path) -> None:
    (example,) = [part.split("```", 1)[0] for part in PAGE.split("```yaml\n")[1:]]
    path = tmp_path / "orchestrator.yaml"
    path.write_text(example)
    settings = load_settings({}, {}, path)
    assert [item.name for item in settings.receivers.items] == ["chat", "alertmanager", "pager", "log"]
    assert isinstance(settings.receivers.items[0], WebhookReceiver)


def test_it_names_every_transition_template_and_field() -> None:
    for transition in Transition:
        assert f"| `{transition}` |" in PAGE
    for template in (ROOT / "templates" / "notification").iterdir():
        assert f"| `{template.name.removesuffix('.json.j2')}` |" in PAGE
    table = PAGE.partition("### The fields")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z_]+)`", table))
    document = document_of(notice())
    assert document.keys() | document["incident"].keys() <= named


def test_its_numbers_are_those_of_the_code() -> None:
    assert f"last {KEPT} notices" in PAGE
    assert f"at most {MOST_BYTES} bytes" in PAGE
    assert (Patience().longest_seconds, Patience().give_up_seconds) == (60.0, 3600.0)
    assert "up to a minute" in PAGE
    assert "an hour old" in PAGE
