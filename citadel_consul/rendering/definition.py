"""Rendering a service definition, in the form that a Consul agent reads from a file.

Which template: the one that the spec names, or ``<type>.json.j2``, or ``service.json.j2``; each is looked for in the
user's template directories first and among the shipped ones last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from citadel_consul.core.model import Check, ServiceSpec
from citadel_consul.errors import InvalidInput, Problem
from citadel_consul.rendering.constraints import check_definition
from citadel_consul.rendering.endpoint import parse_endpoint
from citadel_consul.rendering.environment import duration, file_environment, render, template_errors
from citadel_consul.rendering.expansion import expand
from citadel_consul.rendering.identity import check_id, is_reserved, service_id, standing_meta
from citadel_consul.rendering.scope import NodeContext, variables

TEMPLATES = "templates"
FALLBACK = "service.json.j2"


def render_definition(spec: ServiceSpec, context: NodeContext, template_dirs: Sequence[Path] = ()) -> dict[str, object]:
    """The definition ``{"service": {…}}`` of ``spec`` on the node of ``context``.

    ``spec`` is taken as the stack file says it; its templated strings are expanded here. ``template_dirs`` are the
    user's, searched in their order. Raises InvalidInput for strings and templates that do not render,
    for a result that is not JSON (naming template and line), and for what Consul would refuse.
    """
    place = f"services.{spec.name}"
    expanded = expand(spec, context)
    names = _names(expanded, context, place)
    environment, loader = file_environment(tuple(template_dirs), TEMPLATES)
    template_name = _template_name(spec, loader.holds, place)
    with template_errors(place):
        text = render(environment.get_template(template_name), names)
    definition = _parse(text, place, template_name)
    identifier = service_id(context.stack, spec.name, context.name)
    check_definition(definition, identifier, spec.name, f"{place}, template {template_name}")
    return definition


def _template_name(spec: ServiceSpec, holds: Callable[[str], bool], place: str) -> str:
    if spec.template is not None:
        if not holds(spec.template):
            remedy = "put it into the template directory"
            raise InvalidInput.at(f"{place}.template", f"template {spec.template!r} does not exist", remedy)
        return spec.template
    by_type = f"{spec.type}.json.j2"
    return by_type if holds(by_type) else FALLBACK


def _names(spec: ServiceSpec, context: NodeContext, place: str) -> Mapping[str, object]:
    endpoint = parse_endpoint(f"{place}.endpoint", spec.endpoint, context.address)
    taken = [key for key in spec.meta if is_reserved(key)]
    if taken:
        raise InvalidInput(Problem(f"{place}.meta.{key}", "is set by citadel", "choose another key") for key in taken)
    identifier = service_id(context.stack, spec.name, context.name)
    return {
        **variables(spec, context),
        "id": identifier,
        "address": endpoint.address,
        "port": endpoint.port,
        "scheme": endpoint.scheme,
        "critical": spec.critical,
        "tags": list(dict.fromkeys((*spec.tags, spec.type))),
        "meta": {**spec.meta, **standing_meta(spec, context, endpoint.scheme)},
        "checks": [_check_view(check, identifier) for check in spec.checks],
    }


def _check_view(check: Check, instance_id: str) -> Mapping[str, object]:
    return {
        "id": check_id(instance_id, check.name),
        "name": check.name,
        "kind": check.kind.value,
        "target": check.target,
        "args": list(check.args),
        "interval": duration(check.interval_seconds),
        "timeout": duration(check.timeout_seconds),
        "ttl": duration(check.ttl_seconds),
        "method": check.method,
        "headers": {name: list(values) for name, values in check.headers.items()},
        "tls_skip_verify": check.tls_skip_verify,
        "success_before_passing": check.success_before_passing,
        "failures_before_critical": check.failures_before_critical,
    }


def _parse(text: str, place: str, template: str) -> dict[str, object]:
    where = f"{place}, template {template}"
    try:
        text.encode()  # a lone surrogate is valid in a JSON escape, and nowhere else
        parsed: object = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1 : error.lineno]
        message = f"line {error.lineno} of its output is not JSON: {error.msg}: {''.join(line).strip()}"
        raise InvalidInput.at(where, message, "give every value to the filter 'tojson'") from error
    except ValueError as error:
        raise InvalidInput.at(where, f"its output is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise InvalidInput.at(where, "its output must be an object with the key 'service'")
    return parsed


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = sorted({key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1})
        raise ValueError(f"the key {twice[0]!r} occurs twice in one object")
    return result


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
