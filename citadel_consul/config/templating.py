"""Jinja in configuration values: which names it may use, and whether it can be rendered at all.

Rendering happens on the node; that is too late to learn of a typing error, so the syntax and the names are checked
when the file is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from citadel_consul.config.durations import format_duration
from citadel_consul.config.suggestions import suggest
from citadel_consul.errors import InvalidInput

if TYPE_CHECKING:
    import jinja2
    from jinja2 import nodes

VARIABLES: Mapping[str, tuple[str, ...]] = {
    "node": ("name", "address"),
    "service": ("name", "type"),
    "stack": (),
    "python": (),
    "data_dir": (),
    "consul_http_addr": (),
}
"""What a template may name, each with its parts, as ``rendering.scope`` provides them."""

_MARKS = ("{{", "{%", "{#")


def is_template(text: str) -> bool:
    """Whether ``text`` holds anything for Jinja to do."""
    return any(mark in text for mark in _MARKS)


def check_template(text: str) -> str:
    """Return ``text`` if it can be rendered. Raises InvalidInput with an empty place."""
    if not is_template(text):
        return text
    import jinja2

    try:
        tree = _environment().parse(text)
        _check_names(tree)
    except jinja2.TemplateAssertionError as error:
        remedy = "use the filters and tests that Jinja has"
        raise InvalidInput.at("", f"not a valid template: {_sentence(error)}", remedy) from error
    except jinja2.TemplateSyntaxError as error:
        remedy = "write {{ '{{' }} for two literal braces"
        raise InvalidInput.at("", f"not a valid template: {_sentence(error)}", remedy) from error
    except RecursionError as error:
        raise InvalidInput.at("", "a template nested too deeply", "simplify it") from error
    return text


def _check_names(tree: nodes.Template) -> None:
    from jinja2 import meta, nodes

    unknown = meta.find_undeclared_variables(tree) - set(VARIABLES) - set(_environment().globals)
    for name in sorted(unknown):
        raise InvalidInput.at("", f"a template cannot use {name!r}", suggest(name, VARIABLES, "it can use"))
    for part in tree.find_all(nodes.Getattr):
        owner = part.node.name if isinstance(part.node, nodes.Name) else ""
        known = VARIABLES.get(owner, ())
        if known and part.attr not in known:
            raise InvalidInput.at("", f"{owner!r} has no {part.attr!r}", suggest(part.attr, known, "it has"))


def _sentence(error: jinja2.TemplateSyntaxError) -> str:
    return (error.message or "syntax error").rstrip(".")


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(autoescape=False)  # noqa: S701 - it parses, and renders nothing
    environment.filters["duration"] = format_duration  # as rendering has it
    return environment
