"""These tests use the model of the world that the tests of ``core`` have."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "core"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Delays are drawn from the global generator, as tenacity does it."""
    random.seed(1)
