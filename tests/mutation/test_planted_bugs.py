"""The list of planted bugs fits the code. Whether they are caught is the business of bin/mutants, which is slow."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import BUGS, Bug

PACKAGE = Path(__file__).resolve().parents[2] / "citadel_consul"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_changes_one_place(bug: Bug) -> None:
    text = (PACKAGE / bug.file).read_text()
    assert text.count(bug.old) == 1
    compile(text.replace(bug.old, bug.new), bug.file, "exec")


def test_there_are_enough_of_them_and_no_two_of_a_name() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 25
