"""A root folder of its own, and citadel's command line over it."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from citadel_consul.cli.main import citadel


class InstalledRoot:
    """What ``citadel install --root`` works on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def call(self, *words: str) -> Result:
        """Call ``citadel`` with ``--root``; the result may be a failure."""
        return CliRunner().invoke(citadel, [*words, "--root", str(self.folder)])

    def cite(self, *words: str) -> str:
        """What a call that has to succeed prints."""
        result = self.call(*words)
        if result.exception is not None:
            raise result.exception
        return result.output

    def path(self, place: str) -> Path:
        return self.folder / place.lstrip("/")

    def read(self, place: str) -> str:
        return self.path(place).read_text()

    def tree(self) -> dict[str, tuple[str, int, str]]:
        """All that is there: kind, mode, and content or target."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name, mode = str(path.relative_to(self.folder)), path.lstat().st_mode & 0o7777
            if path.is_symlink():
                found[name] = ("link", 0, str(path.readlink()))
            elif path.is_dir():
                found[name] = ("folder", mode, "")
            else:
                found[name] = ("file", mode, path.read_text())
        return found
