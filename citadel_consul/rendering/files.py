"""Writing definitions for a plain Consul agent: ``citadel render --out``.

Everything is rendered before anything is written, so that bad input leaves no half of a stack behind, and each file
appears whole or not at all: Consul may reload its directory at any moment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from citadel_consul.core.model import Stack
from citadel_consul.errors import BackendError, InvalidInput, Problem
from citadel_consul.rendering.definition import render_definition
from citadel_consul.rendering.scope import NodeContext


def render_files(
    stack: Stack, out_dir: Path, contexts: Iterable[NodeContext], template_dirs: Sequence[Path] = ()
) -> tuple[Path, ...]:
    """Write one definition for each instance of ``stack`` on the nodes of ``contexts``; the paths written.

    With several nodes the files are ``<node>/<service>.json``, each folder being what that node's Consul agent
    reads with ``-config-dir``; with one node they are ``<service>.json``. Files of services that are no longer in
    the stack are left alone, for ``out_dir`` may hold other files too. Raises InvalidInput with the problems of
    every instance, and BackendError when the files cannot be written.
    """
    nodes = tuple(contexts)
    rendered: dict[Path, str] = {}
    problems: list[Problem] = []
    for context in nodes:
        folder = out_dir / context.name if len(nodes) > 1 else out_dir
        for spec in stack.services.values():
            if context.name not in spec.nodes:
                continue
            try:
                definition = render_definition(spec, context, template_dirs)
            except InvalidInput as error:
                problems.extend(error.problems)
            else:
                rendered[folder / f"{spec.name}.json"] = json.dumps(definition, indent=2, ensure_ascii=False) + "\n"
    if problems:
        raise InvalidInput(dict.fromkeys(problems))  # the same mistake shows on every node of a service
    return write_files(rendered)


def write_files(contents: Mapping[Path, str]) -> tuple[Path, ...]:
    """Write each file atomically, making its folder if need be; BackendError names the one that failed."""
    for path, text in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, text)
        except OSError as error:
            raise BackendError(f"cannot write {path}: {error.strerror or error}") from error
    return tuple(contents)


def _write(path: Path, text: str) -> None:
    # Not *.json nor *.hcl: Consul must not load it half written. os.open leaves the mode to the operator's umask,
    # where tempfile would make it 0600, and Consul runs as a user of its own.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
