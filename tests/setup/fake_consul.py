"""A program that passes for Consul, and answers at once."""

from __future__ import annotations

from pathlib import Path


def write_consul(path: Path, version: str = "1.16.0") -> Path:
    """A program that says of itself that it is Consul."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'Consul v{version}'\n")
    path.chmod(0o755)
    return path
