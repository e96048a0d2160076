"""Where the harness of the example platform and of ``citadel dev`` is found."""

from __future__ import annotations

import sys
from pathlib import Path

# They live with other tests.
sys.path += [
    str(Path(__file__).resolve().parents[1] / folder) for folder in ("system", "dev", "examples", "drill", "rendering")
]
