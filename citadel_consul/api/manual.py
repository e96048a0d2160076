"""``/docs``: the API for people, made from its OpenAPI document.

A plain page without scripts and without anything from elsewhere: the machine of an operator may have no way to the
internet, and a page that may run nothing cannot be turned against the API that it describes. Programs take
``/openapi.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from citadel_consul.api.problems import ALL_KINDS

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc } h3 { margin: 1.8rem 0 .3rem }
code, pre { font: 13px/1.45 ui-monospace, monospace } pre { background: #f4f4f4; padding: .7rem; overflow-x: auto }
table { border-collapse: collapse; margin: .5rem 0 } td, th { text-align: left; padding: .15rem 1rem .15rem 0;
vertical-align: top } .method { display: inline-block; min-width: 4rem; color: #05538c } .quiet { color: #666 }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #e4e4e4 } pre { background: #262626 }
.method { color: #6cb6f5 } a { color: #6cb6f5 } .quiet { color: #999 } }
"""
Schema = Mapping[str, Any]


def page(openapi: Schema, base_url: str) -> str:
    """The HTML of the manual. ``base_url`` is how the reader reached it, for the examples."""
    groups: dict[str, list[str]] = {}
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            text = "".join(_operation(openapi, base_url, method.upper(), path, operation))
            groups.setdefault(operation.get("tags", ["Other"])[0], []).append(text)
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(texts)}" for tag, texts in groups.items())
    title = escape(openapi["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{title}</h1><p>{escape(openapi['info']['description'])}</p>"
        f'<p>For programs: <a href="/openapi.json">/openapi.json</a></p>{body}{_problems()}</body></html>'
    )


def _operation(openapi: Schema, base_url: str, method: str, path: str, operation: Schema) -> Iterator[str]:
    anchor = escape(operation["operationId"])
    yield f'<h3 id="{anchor}"><code><span class="method">{method}</span> {escape(path)}</code></h3>'
    for paragraph in operation.get("description", "").split("\n\n"):
        yield f"<p>{escape(paragraph)}</p>"
    schema = _body_schema(openapi, operation)
    rows = [*_parameter_rows(operation), *_field_rows(openapi, schema)]
    if rows:
        yield f"<table>{''.join(rows)}</table>"
    yield f"<pre>{escape(_example(openapi, base_url, method, path, operation, schema))}</pre>"


def _parameter_rows(operation: Schema) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        kind = f"{parameter['in']}, {_kind(parameter['schema'])}"
        yield _row(parameter["name"], kind, parameter.get("description", ""))


def _field_rows(openapi: Schema, schema: Schema) -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        kind = f"body, {_kind(_resolved(openapi, field))}" + (", required" if name in required else "")
        default = field.get("default")
        said = field.get("description", "")
        yield _row(name, kind, said if default in (None, "") else f"{said} Default: {json.dumps(default)}.")


def _row(name: str, kind: str, text: str) -> str:
    return f'<tr><td><code>{escape(name)}</code></td><td class="quiet">{escape(kind)}</td><td>{escape(text)}</td></tr>'


def _kind(schema: Schema) -> str:
    options = [_kind(option) for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if options:
        return " or ".join(options)
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}s"
    return str(schema.get("type", "object"))


def _example(openapi: Schema, base_url: str, method: str, path: str, operation: Schema, schema: Schema) -> str:
    for parameter in operation.get("parameters", ()):
        examples = parameter["schema"].get("examples")
        if parameter["in"] == "path" and examples:
            path = path.replace(f"{{{parameter['name']}}}", str(examples[0]))
    parts = ["curl", *(() if method == "GET" else ("-X", method)), f"'{base_url}{path}'"]
    required = {name: schema["properties"][name] for name in schema.get("required", ())}
    if required:
        body = {name: _sample(_resolved(openapi, field)) for name, field in required.items()}
        parts += ["-H 'Content-Type: application/json'", f"-d '{json.dumps(body)}'"]
    return " ".join(parts)


def _sample(field: Schema) -> object:
    examples = field.get("examples")
    if examples:
        return examples[0]
    return ["all"] if field.get("type") == "array" else "api-gateway"


def _body_schema(openapi: Schema, operation: Schema) -> Schema:
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    for option in schema.get("anyOf", ()):
        if "$ref" in option:
            return _resolved(openapi, option)
    return _resolved(openapi, schema)


def _resolved(openapi: Schema, schema: Schema) -> Schema:
    reference = schema.get("$ref")
    if reference is None:
        options = [_resolved(openapi, option) for option in schema.get("anyOf", ())]
        return {**schema, "anyOf": options} if options else schema
    found: Schema = openapi["components"]["schemas"][reference.rsplit("/", 1)[1]]
    return found


def _problems() -> str:
    rows = "".join(
        f'<tr id="{kind.name}"><td>{kind.status}</td><td><code>{kind.name}</code></td>'
        f"<td>{escape(kind.title)}</td></tr>"
        for kind in sorted(ALL_KINDS, key=lambda kind: (kind.status, kind.name))
    )
    return f"<h2>Problems</h2><p>Errors are problem documents (RFC 9457).</p><table>{rows}</table>"
