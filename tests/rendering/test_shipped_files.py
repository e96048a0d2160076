"""The templates and policies that ship with citadel: written safely, and found however citadel is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.resources.abc import Traversable
from pathlib import Path

import pytest

import citadel_consul
from citadel_consul.errors import InvalidInput
from citadel_consul.rendering import resources

# Calls of our own macros, whose values went through tojson already, and commas.
_MACROS = re.compile(r"(check\.)?(list|one|http|tcp|grpc|ttl|script|timing)\(|clean\(|\",\" if not loop\.last")

RENDER = """
from citadel_consul.core.model import ProcessBackend, ServiceSpec
from citadel_consul.rendering.definition import render_definition
from citadel_consul.rendering.policy import Role, render_policy
from citadel_consul.rendering.scope import NodeContext
import citadel_consul
spec = ServiceSpec("redis", "cache", ("n1",), ProcessBackend(("x",)))
definition = render_definition(spec, NodeContext("n1", "192.0.2.7", "main"))
print(citadel_consul.__file__, definition["service"]["id"], "read" in render_policy(Role.READ_ONLY, "main"))
"""


def _templates(directory: Traversable) -> list[Traversable]:
    inner = [file for entry in directory.iterdir() if entry.is_dir() for file in _templates(entry)]
    return inner + [entry for entry in directory.iterdir() if entry.name.endswith(".j2")]


def test_every_value_in_a_shipped_template_goes_through_tojson() -> None:
    templates = _templates(resources.shipped("templates"))
    assert len(templates) >= 7
    for template in templates:
        for expression in re.findall(r"\{\{(.*?)\}\}", template.read_text("utf-8")):
            text = expression.strip()
            assert text.endswith("|tojson") or _MACROS.match(text), f"{template.name}: {text}"


@pytest.mark.parametrize("packed", [False, True], ids=["installed", "zipped"])
def test_the_files_are_found_in_an_installed_package(packed: bool, tmp_path: Path) -> None:
    package = Path(citadel_consul.__file__).parent
    site = tmp_path / "site"
    shutil.copytree(package, site / "citadel_consul", ignore=shutil.ignore_patterns("__pycache__", "_data"))
    for directory in ("templates", "consul.d"):
        source = Path(str(resources.shipped(directory)))
        shutil.copytree(source, site / "citadel_consul" / "_data" / directory)
    if packed:
        with zipfile.ZipFile(tmp_path / "site.zip", "w") as archive:
            for file in site.rglob("*"):
                archive.write(file, file.relative_to(site))
        site = tmp_path / "site.zip"
    # Without coverage, which would count the copy as a package of its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment["PYTHONPATH"] = str(site)
    command = [sys.executable, "-c", RENDER]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    location, identifier, policy = result.stdout.split()
    assert location.startswith(str(site))
    assert (identifier, policy) == ("main.redis.n1", "True")


def test_an_installation_without_the_files_says_so() -> None:
    with pytest.raises(InvalidInput, match="missing from this installation"):
        resources.shipped("no-such-directory")
