"""Filling in the templated strings of a spec for one node.

A string without ``{{``, ``{%`` or ``{#`` is returned as it is, and a spec without any such string is the very same
object: expanding costs a scan of its strings and nothing more (the node agent does it for each change of a desired
state).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from citadel_consul.core.model import (
    Backend,
    Check,
    CommandBackend,
    DockerBackend,
    ProcessBackend,
    ServiceSpec,
    SystemdBackend,
)
from citadel_consul.errors import InvalidInput, Problem
from citadel_consul.rendering.environment import compiled, render, template_errors
from citadel_consul.rendering.scope import NodeContext, variables


def is_templated(text: str) -> bool:
    """Whether ``text`` holds anything for Jinja to do."""
    return "{" in text and ("{{" in text or "{%" in text or "{#" in text)


def expand(spec: ServiceSpec, context: NodeContext) -> ServiceSpec:
    """``spec`` with every templated string rendered for the node of ``context``.

    Rendered are endpoint, health_endpoint, the backend's commands, env, paths and names, the checks' target, args
    and headers, tags and meta. Raises InvalidInput with one problem for each string that does not render; it names the
    service, the field and the undefined name.
    """
    if not any(is_templated(text) for text in _strings(spec)):
        return spec
    expansion = _Expansion(spec.name, variables(spec, context))
    expanded = replace(
        spec,
        endpoint=expansion.optional("endpoint", spec.endpoint),
        health_endpoint=expansion.optional("health_endpoint", spec.health_endpoint),
        backend=_expand_backend(spec.backend, expansion),
        checks=tuple(_expand_check(check, expansion) for check in spec.checks),
        tags=expansion.sequence("tags", spec.tags),
        meta=expansion.mapping("meta", spec.meta),
    )
    if expansion.problems:
        raise InvalidInput(expansion.problems)
    return expanded


def _strings(spec: ServiceSpec) -> Iterable[str]:
    yield spec.endpoint or ""
    yield spec.health_endpoint or ""
    yield from _backend_strings(spec.backend)
    for check in spec.checks:
        yield check.target
        yield from check.args
        for values in check.headers.values():
            yield from values
    yield from spec.tags
    yield from spec.meta.values()


def _backend_strings(backend: Backend) -> Iterable[str]:
    match backend:
        case ProcessBackend():
            yield from (*backend.command, *backend.env.values(), backend.cwd or "")
        case SystemdBackend():
            yield backend.unit
        case DockerBackend():
            yield from (text or "" for text in (backend.container, backend.file, backend.service, backend.project))
        case CommandBackend():
            yield from (*backend.start, *backend.stop, *backend.status, *(backend.reload or ()))
            yield from (*backend.env.values(), backend.cwd or "")


def _expand_backend(backend: Backend, expansion: _Expansion) -> Backend:
    match backend:
        case ProcessBackend():
            return replace(
                backend,
                command=expansion.sequence("backend.command", backend.command),
                env=expansion.mapping("backend.env", backend.env),
                cwd=expansion.optional("backend.cwd", backend.cwd),
            )
        case SystemdBackend():
            return replace(backend, unit=expansion.text("backend.unit", backend.unit))
        case DockerBackend():
            return replace(
                backend,
                container=expansion.optional("backend.container", backend.container),
                file=expansion.optional("backend.file", backend.file),
                service=expansion.optional("backend.service", backend.service),
                project=expansion.optional("backend.project", backend.project),
            )
        case CommandBackend():
            return _expand_commands(backend, expansion)


def _expand_commands(backend: CommandBackend, expansion: _Expansion) -> CommandBackend:
    return replace(
        backend,
        start=expansion.sequence("backend.start", backend.start),
        stop=expansion.sequence("backend.stop", backend.stop),
        status=expansion.sequence("backend.status", backend.status),
        reload=expansion.sequence("backend.reload", backend.reload) if backend.reload is not None else None,
        env=expansion.mapping("backend.env", backend.env),
        cwd=expansion.optional("backend.cwd", backend.cwd),
    )


def _expand_check(check: Check, expansion: _Expansion) -> Check:
    place = f"checks.{check.name}"
    headers = {name: expansion.sequence(f"{place}.headers.{name}", values) for name, values in check.headers.items()}
    return replace(
        check,
        target=expansion.text(f"{place}.target", check.target),
        args=expansion.sequence(f"{place}.args", check.args),
        headers=headers,
    )


class _Expansion:
    """Renders strings with one set of names and gathers what goes wrong, so that all of it is reported at once."""

    def __init__(self, service: str, names: Mapping[str, object]) -> None:
        self._service = service
        self._names = names
        self.problems: list[Problem] = []

    def text(self, field: str, source: str) -> str:
        if not is_templated(source):
            return source
        try:
            with template_errors(f"services.{self._service}.{field}"):
                return render(compiled(source), self._names)
        except InvalidInput as error:
            self.problems.extend(error.problems)
            return source

    def optional(self, field: str, source: str | None) -> str | None:
        return None if source is None else self.text(field, source)

    def sequence(self, field: str, sources: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self.text(f"{field}[{index}]", source) for index, source in enumerate(sources))

    def mapping(self, field: str, sources: Mapping[str, str]) -> Mapping[str, str]:
        return {key: self.text(f"{field}.{key}", source) for key, source in sources.items()}
