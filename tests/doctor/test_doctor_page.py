"""docs/cli.md lists every code that doctor can come to, with how bad it is."""

from __future__ import annotations

import re
from pathlib import Path

from citadel_consul.cli.doctor import AREAS as OFFERED
from citadel_consul.core.finding import Severity
from citadel_consul.core.linting.rules import RULES
from citadel_consul.doctor.examine import AREAS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text()


def listed() -> dict[str, str]:
    rows = re.findall(r"^\| ((?:`[a-z0-9-]+`(?:, )?)+) \| (error|warning) \|", PAGE, re.MULTILINE)
    return {code: severity for codes, severity in rows for code in re.findall(r"`([a-z0-9-]+)`", codes)}


def coded() -> dict[str, str]:
    """The codes in the sources of the examinations, each with its severity."""
    files = [*(ROOT / "citadel_consul" / "doctor").glob("*.py"), ROOT / "citadel_consul" / "cli" / "doctor.py"]
    text = "".join(file.read_text() for file in files).replace("_ERROR", "Severity.ERROR")
    text = text.replace("Finding(CODE,", 'Finding("ghost-registration",')
    found = re.findall(r'(?:Finding\(|return Finding\()\s*"([a-z0-9-]+)",\s*Severity\.(ERROR|WARNING)', text)
    return {code: Severity[severity].value for code, severity in found}


def test_the_page_lists_every_code_with_its_severity() -> None:
    assert listed() == coded() | {code: severity.value for code, severity in RULES.items()}


def test_the_areas_that_can_be_left_out_are_those_that_are_examined() -> None:
    assert OFFERED == AREAS
