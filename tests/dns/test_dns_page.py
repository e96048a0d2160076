"""docs/dns.md says what the files say that it tells operators to copy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from forwarders import FORWARDERS

from citadel_consul.rendering.resources import shipped

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "dns.md").read_text()
CONSUL_D = Path(str(shipped("consul.d")))


def test_the_settings_of_the_page_are_those_of_the_file() -> None:
    written = (CONSUL_D / "dns.hcl").read_text()
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| (`[^|]+`) \|", PAGE.partition("## Who is handed out")[2], re.MULTILINE)
    told = {
        name: value
        for names, values in rows
        for name, value in zip(re.findall(r"`(\w+)`", names), re.findall(r"`(\w+)`", values), strict=True)
    }
    assert len(told) == 7
    for name, value in told.items():
        found = re.search(rf'^ *{name} += (?:\{{\s*"\*" = )?"?(\w+)"?', written, re.MULTILINE)
        assert found is not None, name
        assert found.group(1) == value, name


@pytest.mark.parametrize("forwarder", FORWARDERS)
def test_each_recipe_is_copied_to_where_it_says(forwarder: str) -> None:
    source, target = re.findall(rf"^cp consul\.d/(dns/{forwarder}\.conf) (/etc/\S+)$", PAGE, re.MULTILINE)[0]
    text = (CONSUL_D / source).read_text()
    assert text.startswith(f"# {target}: ")
    readme = (CONSUL_D / "README.md").read_text()
    assert f"| `{source}` | `{target}` |" in readme


def test_every_link_of_the_page_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#\s]+)", PAGE)
    assert links
    for link in links:
        assert (ROOT / "docs" / link).exists(), link
