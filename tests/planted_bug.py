"""Programs with a bug in them, to see whether what watches over the real one would notice."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import citadel_consul


def planted(folder: Path, module: str, good: str, bad: str) -> Mapping[str, str]:
    """A copy of the program in ``folder`` with ``good`` replaced by ``bad`` in one of its modules.

    Returns what has to stand in the environment of a process so that it runs the copy.
    """
    package = Path(citadel_consul.__file__).parent
    shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for data in ("pyproject.toml", "templates", "consul.d"):  # a checkout has them beside the package
        if (package.parent / data).exists():
            (folder / data).symlink_to(package.parent / data)
    target = folder / package.name / module
    text = target.read_text()
    assert text.count(good) == 1, f"{module} has changed: {good!r} is not there once"
    target.write_text(text.replace(good, bad))
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
