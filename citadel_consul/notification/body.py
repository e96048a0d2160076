"""The bodies of webhooks: Jinja templates that make JSON of a notice.

They are ``templates/notification/<name>.json.j2``; a folder of one's own (setting ``templates``) goes before those that
ship, as with service definitions. What a template makes is parsed and written anew, so that nothing but JSON is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from citadel_consul.core.notice import Notice
from citadel_consul.errors import InvalidInput
from citadel_consul.notification.document import document_of, iso
from citadel_consul.rendering.environment import file_environment, render, template_errors

FOLDER = "notification"
FIRING_FOR = timedelta(days=7)
"""How long an Alertmanager is told that an incident lasts, unless its end is told earlier."""


def body_of(notice: Notice, template: str, directories: Sequence[Path] = ()) -> bytes:
    """The JSON that ``template`` makes of ``notice``. Raises InvalidInput for a template that does not do."""
    place = f"template {FOLDER}/{template}.json.j2"
    with template_errors(place):
        environment, _ = file_environment(tuple(directories), "templates")
        source = environment.get_template(f"{FOLDER}/{template}.json.j2")
        text = render(source, {"notice": document_of(notice), "ends_at": _ends_at(notice)})
    try:
        return orjson.dumps(orjson.loads(text))
    except orjson.JSONDecodeError as error:
        remedy = "let every value go through |tojson"
        raise InvalidInput.at(place, f"what it makes is not JSON: {error}", remedy) from error


def _ends_at(notice: Notice) -> str:
    incident = notice.incident
    if incident.closed_at is not None:
        return iso(incident.closed_at)
    return iso((datetime.fromtimestamp(incident.opened_at, tz=UTC) + FIRING_FOR).timestamp())
