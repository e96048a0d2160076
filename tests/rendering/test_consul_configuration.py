"""The files of consul.d, in the compositions that its README describes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from consul_validation import validate

from citadel_consul.consul.binary import ConsulBinary
from citadel_consul.rendering.resources import shipped

pytestmark = pytest.mark.consul

CONSUL_D = Path(str(shipped("consul.d")))
OPTIONAL = ("dns.hcl", "telemetry.hcl", "acl.hcl")
COMPOSITIONS = [
    (role, *extra)
    for role in ("server.hcl", "client.hcl")
    for count in range(len(OPTIONAL) + 1)
    for extra in itertools.combinations(OPTIONAL, count)
]


@pytest.mark.parametrize("names", COMPOSITIONS, ids=" ".join)
def test_consul_accepts_every_composition(names: tuple[str, ...], consul_binary: ConsulBinary, tmp_path: Path) -> None:
    assert validate(consul_binary, tmp_path, *(CONSUL_D / name for name in names)) == ""


def test_every_fragment_is_in_a_composition_and_in_the_readme() -> None:
    fragments = {path.name for path in CONSUL_D.glob("*.hcl")}
    assert fragments == set(itertools.chain.from_iterable(COMPOSITIONS))
    readme = (CONSUL_D / "README.md").read_text("utf-8")
    for name in [*fragments, *(path.name for path in (CONSUL_D / "acl").iterdir())]:
        assert f"`{name}`" in readme


def test_a_fragment_of_the_site_overrides_ours(consul_binary: ConsulBinary, tmp_path: Path) -> None:
    (tmp_path / "zz.hcl").write_text('retry_join = ["192.0.2.1"]\nbootstrap_expect = 1\nrecursors = ["192.0.2.53"]\n')
    assert validate(consul_binary, tmp_path, CONSUL_D / "server.hcl", CONSUL_D / "dns.hcl", tmp_path / "zz.hcl") == ""
