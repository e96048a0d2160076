"""``docs/api.md`` against the API: every endpoint, every problem, every metric; each example against its schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import seed_schemas as seed
from api_site import DEFAULTS, NODE, orchestrator_of, validated

from citadel_consul.api.app import create_app
from citadel_consul.api.exposition import Reading, expose
from citadel_consul.api.meter import Meter
from citadel_consul.api.problems import ALL_KINDS
from citadel_consul.api.replies import PREFIX
from citadel_consul.consul.address import parse_address
from citadel_consul.consul.client import ConsulClient
from citadel_consul.core.graph import build_graph
from citadel_consul.core.snapshot import Snapshot

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
EXAMPLES: list[dict[str, Any]] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]
SCHEMAS = {
    "orchestrator_status": seed.STATUS_ANSWER,
    "services": seed.SERVICES_ANSWER,
    "health_summary": seed.HEALTH_ANSWER,
    "startup_result": seed.STARTUP_ANSWER,
    "shutdown_result": seed.SHUTDOWN_ANSWER,
    "restart_result": seed.RESTART_ANSWER,
    "recovery_result": seed.RECOVERY_ANSWER,
    "dependency_graph": seed.DEPENDENCY_ANSWER,
    "orchestration_metrics": seed.METRICS_ANSWER,
    "type": seed.PROBLEM,
}
OWN = {"recovery_test", "operation", "drain_result"}
"""Answers that the site's document does not know."""

UNTYPED = {"type", "operation"}
"""Bodies that are no dataclass, and whose first field is that of some other answer."""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: next(iter(example)))
async def test_each_example_has_the_shape_of_the_answer(example: dict[str, Any]) -> None:
    name = next(iter(example))
    if name in SCHEMAS:
        validated(example, SCHEMAS[name])
    # The dataclasses themselves, so that an example lags behind in no field.
    openapi = await _openapi()
    components = openapi["components"]["schemas"]
    for answer in components.values():
        if name in answer.get("properties", {}) and answer["title"].endswith("Answer") and name not in UNTYPED:
            validated(example, {**_closed(answer), "components": {"schemas": _all_closed(components)}})


def test_every_answer_of_the_sites_document_has_an_example() -> None:
    assert {next(iter(example)) for example in EXAMPLES} == set(SCHEMAS) | OWN


async def test_every_endpoint_is_described() -> None:
    for path in (await _openapi())["paths"]:
        short = path.removeprefix(PREFIX).replace("{operation_id}", "{id}")
        assert f"{short}`" in TEXT, path


def test_every_kind_of_problem_is_described() -> None:
    for kind in ALL_KINDS:
        assert f"| {kind.status} | `{kind.name}` |" in TEXT


async def test_every_metric_is_described() -> None:
    snapshot = Snapshot("demo", {}, build_graph((), ())[0], defaults=DEFAULTS)
    async with ConsulClient(parse_address("127.0.0.1:1")) as client:
        text = expose(Meter(), orchestrator_of(client, "demo"), Reading(snapshot, led=True, seconds=0.1, now=0.0))
    names = set(re.findall(r"^# TYPE (\S+)", text.decode(), re.MULTILINE))
    assert len(names) > 15
    for name in names:
        assert name in TEXT.replace("`…_", "`citadel_control_loop_"), name


async def _openapi() -> dict[str, Any]:
    async with ConsulClient(parse_address("127.0.0.1:1")) as client:
        return create_app(client, orchestrator_of(client, NODE)).openapi()


def _all_closed(components: dict[str, Any]) -> dict[str, Any]:
    return {name: _closed(schema) for name, schema in components.items()}


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a dataclass with every field required, and no others allowed unless it says so."""
    if "properties" not in schema:
        return schema
    others = schema.get("additionalProperties", False)
    return {**schema, "required": list(schema["properties"]), "additionalProperties": others}
