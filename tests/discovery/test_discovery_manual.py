"""What docs/discovery.md quotes is the example's code, and the names that there are. See also the snippets' test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import citadel_consul.discovery as library

ROOT = Path(__file__).parents[2]
MANUAL = (ROOT / "docs" / "discovery.md").read_text()
QUOTED = re.findall(r"<!-- code of (\S+) -->\n```python\n(.*?)```", MANUAL, re.DOTALL)


@pytest.mark.parametrize(("path", "code"), QUOTED)
def test_what_is_quoted_from_the_example_is_its_code(path: str, code: str) -> None:
    assert code in (ROOT / path).read_text()


def test_the_manual_names_every_public_name() -> None:
    table = MANUAL.partition("| name | is |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= set(library.__all__)
    assert len(QUOTED) >= 5


@pytest.mark.parametrize("name", library.__all__)
def test_every_public_name_can_be_imported_and_is_documented(name: str) -> None:
    found = getattr(library, name)
    assert found.__doc__
    assert not found.__doc__.startswith(f"{name}(")  # what a dataclass says of itself when nobody does


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        library.__getattr__("Nothing")


def test_a_service_that_registers_itself_does_not_load_the_library_of_consuls_whole_api() -> None:
    program = "import sys; from citadel_consul.discovery import Registration; print('consul' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["ConsulTransport", "SyncConsulTransport", "Resolver"])
def test_a_client_loads_nothing_that_only_others_need(name: str) -> None:
    heavy = ["pydantic", "jinja2", "fastapi", "yaml", "consul", "citadel_consul.config", "citadel_consul.rendering"]
    program = (
        f"import sys; from citadel_consul.discovery import {name}; "
        f"print([module for module in {heavy!r} if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
