"""Jinja in configuration values: which names it may use, and whether it can be rendered at all.

Rendering happens on the node; that is too late to learn of a typing error, so the syntax and the names are checked
when the file is read.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from citadel_consul.config.suggestions import suggest
from citadel_consul.errors import InvalidInput

if TYPE_CHECKING:
    import jinja2

VARIABLES = ("node", "service", "stack", "python")
"""What a template may name: the node (``node.name``, ``node.address``), the service, the stack, and the path of the
Python interpreter that citadel runs on."""

_MARKS = ("{{", "{%", "{#")


def is_template(text: str) -> bool:
    """Whether ``text`` holds anything for Jinja to do."""
    return any(mark in text for mark in _MARKS)


def check_template(text: str) -> str:
    """Return ``text`` if it can be rendered. Raises InvalidInput with an empty place."""
    if not is_template(text):
        return text
    import jinja2
    from jinja2 import meta

    try:
        tree = _environment().parse(text)
        names = meta.find_undeclared_variables(tree)
    except jinja2.TemplateSyntaxError as error:
        message = f"not a valid template: {error.message}"
        raise InvalidInput.at("", message, "write {{ '{{' }} for two literal braces") from error
    unknown = sorted(names - set(VARIABLES) - set(_environment().globals))
    if unknown:
        message = f"a template cannot use {unknown[0]!r}"
        raise InvalidInput.at("", message, suggest(unknown[0], VARIABLES, "it can use"))
    return text


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - not HTML
