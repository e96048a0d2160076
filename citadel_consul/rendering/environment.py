"""The Jinja environments, and the one place where Jinja's errors become ours.

Specs come from Consul's KV store, where anyone with the right to write specs can put them, and are rendered by
whoever looks at them. Templates therefore run in Jinja's sandbox: a string of a spec cannot reach Python's
internals on the host of an operator or of the leader.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path

from jinja2 import BaseLoader, StrictUndefined, Template, TemplateError, TemplateNotFound, TemplateSyntaxError
from jinja2.exceptions import UndefinedError
from jinja2.loaders import split_template_path
from jinja2.sandbox import ImmutableSandboxedEnvironment

from citadel_consul.errors import InvalidInput
from citadel_consul.rendering.resources import shipped
from citadel_consul.rendering.scope import KNOWN_NAMES

SHIPPED_PREFIX = "citadel"

# What an expression in a template can raise beyond Jinja's own errors: a filter or an operator
# given the wrong thing, a template file that cannot be read.
_EXPRESSION_ERRORS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError, OSError)


class NamedUndefined(StrictUndefined):
    """StrictUndefined whose message names what was written (``node.adress``), not the Python type behind it."""

    @property
    def _undefined_message(self) -> str:
        name = str(self._undefined_name)
        owner = type(self._undefined_obj).__name__
        if owner.endswith("Variable"):
            name = f"{owner.removesuffix('Variable').lower()}.{name}"
        return f"{name!r} is undefined"


class DirectoryLoader(BaseLoader):
    """Loads templates from the first directory that holds them, the shipped one last, and notices changed files.

    A name under ``citadel/`` is looked for among the shipped templates alone, so that a user's ``service.json.j2``
    can extend the ``citadel/service.json.j2`` that it replaces.
    """

    def __init__(self, directories: Sequence[Traversable], base: Traversable) -> None:
        self._directories = (*directories, base)
        self._base = base

    def get_source(
        self,
        environment: object,  # noqa: ARG002 - the signature is Jinja's
        template: str,
    ) -> tuple[str, str, Callable[[], bool]]:
        """The source, the file it came from, and a function that says whether it is still that."""
        found = self._find(template)
        if found is None:
            raise TemplateNotFound(template)
        source, filename = found
        return source, filename, lambda: self._find(template) == found

    def holds(self, template: str) -> bool:
        """Whether one of the directories has this template."""
        return self._find(template) is not None

    def _find(self, template: str) -> tuple[str, str] | None:
        try:
            parts = split_template_path(template)
        except TemplateNotFound:  # a name that climbs out of the directory
            return None
        directories: Sequence[Traversable] = self._directories
        if parts[:1] == [SHIPPED_PREFIX]:
            directories, parts = (self._base,), parts[1:]
        for directory in directories:
            file = directory.joinpath(*parts)
            if file.is_file():
                return file.read_text("utf-8"), str(file)
        return None


def to_json(value: object) -> str:
    """A value as JSON, which is how every value enters a template: it cannot end the string it stands in."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def duration(seconds: float) -> str:
    """Seconds as Go's ParseDuration, and so Consul, reads them: ``10s``, ``0.25s``."""
    text = f"{seconds:.6f}".rstrip("0").rstrip(".")
    return f"{text}s"


def _environment(loader: BaseLoader | None, **options: bool) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        loader=loader,
        undefined=NamedUndefined,
        autoescape=False,  # the output is JSON or an argument, never HTML
        **options,
    )
    environment.filters["tojson"] = to_json
    environment.filters["duration"] = duration
    return environment


@lru_cache(maxsize=64)
def file_environment(directories: tuple[Path, ...], base: str) -> tuple[ImmutableSandboxedEnvironment, DirectoryLoader]:
    """The environment for template files: the user's ``directories`` first, then the shipped directory ``base``.

    A directory that is named and not there is InvalidInput: its templates would silently not be used.
    """
    missing = [str(directory) for directory in directories if not directory.is_dir()]
    if missing:
        raise InvalidInput.at("template directory", f"{', '.join(missing)} does not exist", "create it or drop it")
    loader = DirectoryLoader(directories, shipped(base))
    return _environment(loader, trim_blocks=True, lstrip_blocks=True), loader


@lru_cache(maxsize=1)
def _string_environment() -> ImmutableSandboxedEnvironment:
    return _environment(None, keep_trailing_newline=True)


@lru_cache(maxsize=4096)
def compiled(source: str) -> Template:
    """The compiled form of a templated string of a spec; the same string is compiled once."""
    return _string_environment().from_string(source)


@contextmanager
def template_errors(place: str) -> Iterator[None]:
    """Turn whatever a template can raise into InvalidInput at ``place``, with template and line where known."""
    try:
        yield
    except TemplateSyntaxError as error:
        where = f", template {error.name} line {error.lineno}" if error.name else ""
        raise InvalidInput.at(f"{place}{where}", f"not a Jinja template: {error.message}") from error
    except TemplateNotFound as error:
        raise InvalidInput.at(place, f"template {error.name!r} does not exist") from error
    except UndefinedError as error:
        message = str(error.message)
        raise InvalidInput.at(f"{place}{_line(error)}", message, f"known are {KNOWN_NAMES}") from error
    except (TemplateError, *_EXPRESSION_ERRORS) as error:
        raise InvalidInput.at(f"{place}{_line(error)}", f"the template fails: {error}") from error


def _line(error: BaseException) -> str:
    """Where in a template file an error arose; Jinja rewrites tracebacks so that they name its files."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.endswith(".j2"):
            return f", template {Path(frame.filename).name} line {frame.lineno}"
    return ""


def render(template: Template, names: Mapping[str, object]) -> str:
    """Render with ``names``; a thin seam so that callers need not know Jinja's types."""
    return template.render(names)
