"""Installing works on a folder here, and sees no settings but those that a test gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from installed_root import InstalledRoot


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstalledRoot:
    """An empty root folder with what every Debian has in it."""
    nothing = tmp_path / "nothing.yaml"
    nothing.write_text("")
    monkeypatch.setenv("ORCHESTRATOR_CONFIG_PATH", str(nothing))
    folder = tmp_path / "root"
    for place in ("etc/systemd/system", "opt", "usr/lib/systemd/system", "var/lib"):
        (folder / place).mkdir(parents=True)
    (folder / "etc/systemd/system/mine.service").write_text("[Service]\nExecStart=/bin/true\n")
    return InstalledRoot(folder)
