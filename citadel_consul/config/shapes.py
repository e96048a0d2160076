"""What pydantic finds, said in the words of the file's author."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ValidationError

from citadel_consul.config.findings import Finding, Path
from citadel_consul.config.stackmodels import BACKENDS, LIST_FORM, MAPPING_FORM
from citadel_consul.config.suggestions import suggest

_INTERNAL = {LIST_FORM, MAPPING_FORM, "[key]", *BACKENDS}
_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "a mapping (`key: value` lines)",
    "model_type": "a mapping (`key: value` lines)",
    "model_attributes_type": "a mapping (`key: value` lines)",
}


def shape_findings(model: type[BaseModel], error: ValidationError) -> list[Finding]:
    """The findings for everything in ``error``, which a validation against ``model`` raised."""
    return [_finding(model, details) for details in error.errors(include_url=False)]


def _finding(model: type[BaseModel], details: Mapping[str, typing.Any]) -> Finding:
    kind: str = details["type"]
    path: Path = tuple(part for part in details["loc"] if part not in _INTERNAL)
    context: Mapping[str, object] = details.get("ctx", {})
    value: object = details["input"]
    if kind == "citadel":
        return Finding(path, str(context["message"]), str(context["remedy"]))
    if kind == "missing":
        return Finding(path, "is missing", f"add `{path[-1]}: …`")
    if kind == "extra_forbidden":
        return _unknown_key(model, path, details["loc"])
    if kind in {"literal_error", "enum"}:
        return _choice_finding(path, value, str(context["expected"]))
    if kind in _WANTED and value is None:
        return Finding(path, "has no value", "give it one, or remove it")
    if kind in _WANTED and path[-1:] == ("depends_on",):
        remedy = f"write [{value}]" if isinstance(value, str) else ""
        return Finding(path, f"{_described(value)} is neither a list nor a mapping", remedy)
    if kind in _WANTED:
        return Finding(path, f"{_described(value)} is not {_WANTED[kind]}", _type_remedy(kind, value))
    if kind == "too_short":
        return Finding(path, "is empty", "give it at least one entry")
    if kind == "too_long":
        return Finding(path, "has too many entries", f"use {context['max_length']} or less")
    if kind in {"greater_than_equal", "less_than_equal"}:
        return _bound_finding(path, value, context)
    return Finding(path, str(details["msg"]), "")


def _unknown_key(model: type[BaseModel], path: Path, location: Path) -> Finding:
    key = str(path[-1])
    chosen = next((part for part in location if part in BACKENDS), None)
    if chosen is not None and path[-2] == "backend":
        owners = [tag.strip("<>") for tag, other in BACKENDS.items() if key in other.model_fields]
        if owners:
            ours = str(chosen).strip("<>")
            return Finding(path, f"a backend of kind {ours} has no {key!r}", f"add `kind: {owners[0]}`, or remove it")
    return Finding(path, "unknown key", suggest(key, _fields_at(model, location[:-1]), "known keys"))


def _choice_finding(path: Path, value: object, expected: str) -> Finding:
    options = re.findall(r"'([^']*)'", expected) or [expected]
    if len(options) == 1:
        return Finding(path, f"{_described(value)} is not {options[0]}", f"write {options[0]}")
    remedy = suggest(str(value), options)
    if not remedy.startswith("did you mean"):
        remedy = "choose one of them"
    return Finding(path, f"{_described(value)} is not one of {', '.join(options)}", remedy)


def _bound_finding(path: Path, value: object, context: Mapping[str, object]) -> Finding:
    if "ge" in context:
        return Finding(path, f"{value} is too small", f"use {context['ge']} or more")
    return Finding(path, f"{value} is too large", f"use {context['le']} or less")


def _type_remedy(kind: str, value: object) -> str:
    if isinstance(value, str) and kind == "list_type":
        return f"write [{value}]"
    if kind == "bool_type" and isinstance(value, str):
        word = value.lower()
        return f"write {'true' if word in {'yes', 'on', 'y', '1', 'true'} else 'false'}, without quotes"
    if kind == "string_type" and isinstance(value, int | float):
        return f'quote it: "{_described(value)}"'
    return ""


def _described(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | float():
            text = repr(value)
            return text if len(text) <= 60 else f"{text[:57]}…"
        case None:
            return "no value"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _fields_at(model: type[BaseModel], path: Path) -> Iterable[str]:
    """The fields that the file may have at ``path``, a location as pydantic gives it."""
    annotation: object = model
    for part in path:
        if part in BACKENDS:
            annotation = BACKENDS[str(part)]
            continue
        found = _models_in(annotation)
        if not found:
            return ()
        # Within a list or a mapping the part is an index or a name, and the model stays the one of its entries.
        if isinstance(part, str) and part in found.model_fields and annotation is found:
            annotation = found.model_fields[part].annotation
        else:
            annotation = found
    found = _models_in(annotation)
    return found.model_fields if found else ()


def _models_in(annotation: object) -> type[BaseModel] | None:
    """The one model that a value of this annotation is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        found = _models_in(argument)
        if found is not None:
            return found
    return None
