"""docs/drill.md says what is so."""

from __future__ import annotations

from pathlib import Path

import pytest
from drill_evidence import Evidence

from citadel_consul.cli.drill import drill
from citadel_consul.cli.drilling.data import DataHook

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "drill.md").read_text()


def test_it_explains_every_line() -> None:
    for phase in Evidence().report().phases:
        for line in phase.lines:
            text = line.text.partition(":")[0].partition(" (")[0]
            assert f"| {phase.number} | {text} |" in PAGE


def test_it_names_every_option() -> None:
    own = {"--phase", "--victim", "--target", "--data", "--yes"}
    assert own <= {name for parameter in drill.params for name in parameter.opts}
    assert all(f"| `{name}" in PAGE for name in own)


@pytest.mark.parametrize("source", ["page", "example"])
def test_the_data_of_page_and_example_can_be_used(source: str, tmp_path: Path) -> None:
    path = ROOT / "examples" / "ai-platform" / "drill.yaml"
    if source == "page":
        (text,) = [part.split("```", 1)[0] for part in PAGE.split("```yaml\n")[1:]]
        path = tmp_path / "drill.yaml"
        path.write_text(text)
    DataHook(path)
