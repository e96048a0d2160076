"""The recipes of docs/dns.md: names under .consul through dnsmasq and systemd-resolved, as programs ask for them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from debian_packages import NotToBeHad, unpacked
from forwarded_site import CHECK_INTERVAL_SECONDS, CONSUL_D, PORT, Site
from forwarders import FORWARDERS
from netspace import Netspace, NoNamespaces, until

from citadel_consul.consul.binary import ConsulBinary

pytestmark = pytest.mark.consul

ONE, TWO = "127.0.0.2", "127.0.0.3"
SLACK_SECONDS = 3.0
"""What a starved machine adds: starting getent once more, and telling the catalog."""


def service_ttl_seconds() -> float:
    """How long an answer may be kept, by the file that an operator copies."""
    found = re.search(r'service_ttl = \{\s*"\*" = "(\d+)s"', (CONSUL_D / "dns.hcl").read_text())
    assert found is not None
    return float(found.group(1))


@pytest.fixture(scope="module", params=FORWARDERS)
def unforwarded(
    request: pytest.FixtureRequest, consul_binary: ConsulBinary
) -> Iterator[tuple[Site, Callable[[Site], None]]]:
    """A machine with Consul and two services, and how the forwarder is set up."""
    packages, start = FORWARDERS[request.param]
    # A short path, because that of a unix socket may have a hundred characters.
    with tempfile.TemporaryDirectory(prefix="citadel-dns-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            tree = unpacked(*packages)
            with Netspace(folder) as space:
                site = Site(space, tree, folder / "consul.sock")
                site.start_consul(consul_binary)
                for address, tag in ((ONE, "blue"), (TWO, "green")):
                    site.start_instance(address)
                    site.register(address, tag)
                yield site, start
        except (NotToBeHad, NoNamespaces) as reason:
            pytest.skip(f"{request.param}: {reason}")


@pytest.fixture(scope="module")
def site(unforwarded: tuple[Site, Callable[[Site], None]]) -> Site:
    """The machine, once the recipe was followed; before, names are not found, and doctor says so."""
    machine, start = unforwarded
    assert machine.hosts("web.service.consul") == 2
    assert "dns-not-forwarded" in findings_of(machine)
    try:
        start(machine)
    except NoNamespaces as reason:
        pytest.skip(str(reason))
    return machine


@pytest.fixture(autouse=True)
def _both_serve(site: Site) -> None:
    until(lambda: site.passing() == {ONE, TWO}, "both instances to pass")
    until(lambda: site.addresses() == {ONE, TWO}, "both instances in DNS")


def findings_of(site: Site) -> set[str]:
    """The codes of what doctor finds wrong with DNS."""
    skipped = [word for area in ("token", "clock", "stack", "registrations", "checks") for word in ("--skip", area)]
    done = site.citadel("doctor", *skipped, "-o", "json")
    return {f["code"] for report in orjson.loads(done.stdout)["reports"] for f in report["findings"]}


def test_programs_find_services_by_name_and_by_tag(site: Site) -> None:
    assert site.hosts("web.service.consul") == 0
    assert site.addresses("blue.web.service.consul") == {ONE}
    assert site.targets() == {(ONE, PORT), (TWO, PORT)}
    assert site.targets("green.web.service.consul") == {(TWO, PORT)}
    assert site.hosts("nobody.service.consul") == 2


def test_doctor_and_resolve_are_content_with_it(site: Site) -> None:
    assert findings_of(site) == set()
    name_server = site.space.resolv_conf.read_text().split()[1]
    done = site.citadel("resolve", "web", "--dns-server", f"{name_server}:53")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(" yes  yes") == 2


def test_answers_follow_an_instance_that_fails_and_comes_back(site: Site) -> None:
    documented = service_ttl_seconds() + SLACK_SECONDS
    site.kill_instance(ONE)
    until(lambda: site.passing() == {TWO}, "the check to fail")
    assert until(lambda: site.addresses() == {TWO}, "getent to leave it out") <= documented
    assert until(lambda: site.targets() == {(TWO, PORT)}, "dig to leave it out") <= documented
    site.start_instance(ONE)
    until(lambda: site.passing() == {ONE, TWO}, "the check to pass")
    assert until(lambda: site.addresses() == {ONE, TWO}, "getent to find it") <= documented
    assert until(lambda: site.targets() == {(ONE, PORT), (TWO, PORT)}, "dig to find it") <= documented


def test_from_the_failure_to_the_last_answer_it_takes_an_interval_and_a_ttl(site: Site) -> None:
    site.kill_instance(TWO)
    took = until(lambda: TWO not in site.addresses(), "getent to leave it out")
    assert took <= CHECK_INTERVAL_SECONDS + service_ttl_seconds() + SLACK_SECONDS
    site.start_instance(TWO)


def test_that_nobody_serves_is_forgotten_as_soon_as_somebody_does(site: Site) -> None:
    for address in (ONE, TWO):
        site.kill_instance(address)
    until(lambda: site.hosts("web.service.consul") == 2, "the name to be gone")
    for _ in range(3):
        assert site.hosts("web.service.consul") == 2
    site.start_instance(ONE)
    until(lambda: site.passing() == {ONE}, "the check to pass")
    assert until(lambda: site.addresses() == {ONE}, "getent to find it") <= service_ttl_seconds() + SLACK_SECONDS
    site.start_instance(TWO)
