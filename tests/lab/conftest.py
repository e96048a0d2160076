"""The lab's modules belong to bin/lab, not to the package: they are imported from where bin/lab finds them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "vagrant"))
