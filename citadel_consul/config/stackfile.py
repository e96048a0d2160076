"""The stack file: what a user writes of a stack, read into ``core.model.Stack``.

Reading goes in steps: YAML (``source``), single fields (``stackmodels``), rules between fields and services
(``stackrules``). Each reports all that it finds, and only a file without any problem becomes a stack.
"""

from __future__ import annotations

from pathlib import Path as FilePath

from pydantic import ValidationError

from citadel_consul.config import source
from citadel_consul.config.findings import Finding
from citadel_consul.config.options import DEFAULT_CHECK_INTERVAL_SECONDS
from citadel_consul.config.outline import ServiceOutline, as_mapping, merge
from citadel_consul.config.shapes import shape_findings
from citadel_consul.config.source import Document
from citadel_consul.config.stackassembly import assemble
from citadel_consul.config.stackmodels import ServiceModel, StackModel
from citadel_consul.config.stackrules import rule_findings
from citadel_consul.core.model import Stack
from citadel_consul.errors import InvalidInput

EXTENSION_PREFIX = "x-"
"""Keys at the top of the file that start so are the user's own, a place for anchors."""

# An empty service is reported by its model; an edge without a value takes every default.
_EMPTY_ALLOWED = (("services", "*"), ("services", "*", "depends_on", "*"), ("defaults", "depends_on", "*"))


def load_stack(path: FilePath, *, check_interval_seconds: float = DEFAULT_CHECK_INTERVAL_SECONDS) -> Stack:
    """The stack that a file describes; relative working folders are resolved against the file's folder.

    ``check_interval_seconds`` is for checks without an interval. Raises InvalidInput with every problem found.
    """
    text = source.read_file(path)
    folder = path.absolute().parent
    return parse_stack(text, str(path), folder=folder, check_interval_seconds=check_interval_seconds)


def parse_stack(
    text: str,
    name: str,
    *,
    folder: FilePath | None = None,
    check_interval_seconds: float = DEFAULT_CHECK_INTERVAL_SECONDS,
) -> Stack:
    """The stack that ``text`` describes. ``name`` is what problems call the file.

    Relative working folders are resolved against ``folder``, the current one if absent. Raises InvalidInput with
    every problem found.
    """
    document = source.parse_document(text, name, _EMPTY_ALLOWED)
    data = {key: value for key, value in document.data.items() if not key.startswith(EXTENSION_PREFIX)}
    outlines = _outlines(data)
    findings = [*_written_findings(data), *(_relocated(finding, document) for finding in rule_findings(outlines))]
    # A key without a value counts as absent, but saying so a second time helps nobody.
    said = {finding.path for finding in document.findings}
    findings = [
        finding for finding in findings if finding.path not in said or not finding.message.startswith("is missing")
    ]
    if document.findings or findings:
        raise InvalidInput(document.problems([*document.findings, *findings]))
    models = _merged_models(outlines, document)
    return assemble(str(data["stack"]), models, folder or FilePath.cwd(), check_interval_seconds)


def stack_json_schema() -> dict[str, object]:
    """The JSON Schema (draft 2020-12) of the stack file, for editors and for checks outside of citadel."""
    schema: dict[str, object] = StackModel.model_json_schema()
    _tidy(schema)
    schema["patternProperties"] = {f"^{EXTENSION_PREFIX}": True}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "citadel stack file"}


def _outlines(data: dict[str, object]) -> dict[str, ServiceOutline]:
    defaults = as_mapping(data.get("defaults"))
    return {
        name: ServiceOutline(name, merge(defaults, as_mapping(service)), readable=isinstance(service, dict))
        for name, service in as_mapping(data.get("services")).items()
    }


def _written_findings(data: dict[str, object]) -> list[Finding]:
    try:
        StackModel.model_validate(_with_kinds(data))
    except ValidationError as error:
        return shape_findings(StackModel, error)
    return []


def _with_kinds(data: dict[str, object]) -> dict[str, object]:
    """``data`` with the kind of the default backend in every backend that gives none: it says what the others mean."""
    kind = as_mapping(as_mapping(data.get("defaults")).get("backend")).get("kind")
    services = data.get("services")
    if kind is None or not isinstance(services, dict):
        return data
    return {**data, "services": {name: _with_kind(service, kind) for name, service in services.items()}}


def _with_kind(service: object, kind: object) -> object:
    if not isinstance(service, dict) or not isinstance(service.get("backend"), dict):
        return service
    return {**service, "backend": {"kind": kind, **service["backend"]}}


def _merged_models(outlines: dict[str, ServiceOutline], document: Document) -> dict[str, ServiceModel]:
    """The services with their defaults. Only limits on sizes can be broken by a merge of two valid parts."""
    models: dict[str, ServiceModel] = {}
    findings: list[Finding] = []
    for name, outline in outlines.items():
        try:
            models[name] = ServiceModel.model_validate(outline.data)
        except ValidationError as error:
            found = shape_findings(ServiceModel, error)
            findings += [finding._replace(path=("services", name, *finding.path)) for finding in found]
    if findings:
        raise InvalidInput(document.problems(findings))
    return models


def _relocated(finding: Finding, document: Document) -> Finding:
    """A finding about a value that a service has from the defaults is placed there."""
    below = finding.path[2:]
    in_defaults = ("defaults", *below)
    if document.depth(in_defaults) - 1 > document.depth(finding.path) - 2:
        return finding._replace(path=in_defaults)
    return finding


def _tidy(schema: object) -> None:
    """Close mappings to keys that are no valid names, and take null out of every field.

    In the models null stands for 'absent'; in a file it is an error.
    """
    if isinstance(schema, list):
        for part in schema:
            _tidy(part)
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema["additionalProperties"] = False
        for field in as_mapping(schema.get("properties")).values():
            _drop_null(field)
        # A backend without its kind, which the defaults give, fits several.
        if "oneOf" in schema and all("$ref" in option for option in schema["oneOf"]):
            schema["anyOf"] = schema.pop("oneOf")
        for part in schema.values():
            _tidy(part)


def _drop_null(field: object) -> None:
    if not isinstance(field, dict):
        return
    if "default" in field and field["default"] is None:
        del field["default"]
    if {"type": "null"} in field.get("anyOf", ()):
        options = [option for option in field.pop("anyOf") if option != {"type": "null"}]
        field.update(options[0] if len(options) == 1 else {"anyOf": options})
