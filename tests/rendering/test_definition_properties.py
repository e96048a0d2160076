"""Whatever the text, the definition is JSON that says the same, and so is the body for Consul's API."""

from __future__ import annotations

import json
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from citadel_consul.core.model import Check, CheckKind, ProcessBackend, ServiceSpec
from citadel_consul.rendering.definition import render_definition
from citadel_consul.rendering.expansion import is_templated
from citadel_consul.rendering.registration import to_agent_api
from citadel_consul.rendering.scope import NodeContext

CONTEXT = NodeContext(name="n1", address="192.0.2.7", stack="main")
# Everything that looks like the syntax of JSON or Jinja turns up often, and anything else now and then.
TEXT = (
    st.lists(st.sampled_from(['"', "\\", "\n", "{", "}", "[", "]", ",", ":", "'", "#}", "%}", "\0", "é"]) | st.text())
    .map("".join)
    .filter(lambda text: not is_templated(text) and len(text.encode()) <= 512)
)
KEYS = st.from_regex(r"[a-zA-Z0-9_]{1,30}", fullmatch=True)
TYPES = st.sampled_from(["database", "cache", "ai_service", "gateway", "processing", "other"])


@given(
    type_=TYPES,
    tags=st.lists(TEXT, max_size=4, unique=True),
    meta=st.dictionaries(KEYS, TEXT, max_size=4),
    target=TEXT,
    args=st.lists(TEXT, max_size=3),
    header=TEXT,
)
def test_any_text_round_trips(
    type_: str, tags: list[str], meta: dict[str, str], target: str, args: list[str], header: str
) -> None:
    checks = (
        Check("web", CheckKind.HTTP, target, headers={header: (header, target)}),
        Check("tcp", CheckKind.TCP, target),
        Check("rpc", CheckKind.GRPC, target),
        Check("script", CheckKind.SCRIPT, args=tuple(args)),
    )
    backend = ProcessBackend(command=("x",))
    spec = ServiceSpec("redis", type_, ("n1",), backend, checks=checks, tags=tuple(tags), meta=meta)
    definition = render_definition(spec, CONTEXT)
    assert json.loads(json.dumps(definition)) == definition
    service = cast("dict[str, Any]", definition["service"])
    assert service["tags"] == list(dict.fromkeys([*tags, type_]))
    assert {key: service["meta"][key] for key in meta} == meta
    web, tcp, rpc, script = service["checks"]
    assert (web["http"], web["header"]) == (target, {header: [header, target]})
    assert (tcp["tcp"], rpc["grpc"], script["args"]) == (target, target, args)
    body = cast("dict[str, Any]", to_agent_api(definition, "passing"))
    assert body["Meta"] == service["meta"]
    assert [check["Status"] for check in body["Checks"]] == ["passing"] * 4
    assert body["Checks"][0]["HTTP"] == target
