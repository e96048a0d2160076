"""The reference pages say of every field and setting what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from reference_tables import MODELS, model_table, settings_table

from citadel_consul.config.settings import load_settings
from citadel_consul.config.stackfile import parse_stack

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    """The YAML examples of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [part.split("```", 1)[0] for part in text.split("```yaml\n")[1:]]


@pytest.mark.parametrize("name", MODELS)
def test_the_page_of_the_stack_file_lists_every_field(name: str) -> None:
    page = (DOCS / "stack-file.md").read_text(encoding="utf-8")
    table = model_table(MODELS[name])
    assert table in page, f"docs/stack-file.md should hold:\n{table}"


def test_the_page_of_the_settings_lists_every_setting() -> None:
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert settings_table() in page, f"docs/settings.md should hold:\n{settings_table()}"


def test_the_examples_of_the_stack_file_are_good() -> None:
    examples = [text for text in blocks("stack-file.md") if text.startswith("version:")]
    assert len(examples) >= 2
    for text in examples:
        assert parse_stack(text, "example.yaml").services


def test_the_fragments_of_the_stack_file_are_yaml() -> None:
    assert all(yaml.safe_load(text) for text in blocks("stack-file.md"))


def test_the_example_of_the_configuration_file_is_good(tmp_path: Path) -> None:
    (example,) = blocks("settings.md")
    path = tmp_path / "orchestrator.yaml"
    path.write_text(example, encoding="utf-8")
    load_settings({}, {}, path)
