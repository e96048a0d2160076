"""What the lab reads of what other programs print."""

import ipaddress

import pytest
from citadel_lab.command import failure, run  # type: ignore[import-not-found,unused-ignore]
from citadel_lab.errors import LabError  # type: ignore[import-not-found,unused-ignore]
from citadel_lab.host import missing_packages  # type: ignore[import-not-found,unused-ignore]
from citadel_lab.image import mirror_lines  # type: ignore[import-not-found,unused-ignore]
from citadel_lab.lifecycle import overlapping  # type: ignore[import-not-found,unused-ignore]
from citadel_lab.status import NodeStatus, parse_units, table  # type: ignore[import-not-found,unused-ignore]
from citadel_lab.vagrant import parse_states  # type: ignore[import-not-found,unused-ignore]

TARGETS = """\
http://mirror.test/debian|bookworm|Debian
http://mirror.test/debian|bookworm-updates|Debian
http://mirror.test/debian-security|bookworm-security|Debian
http://second.test/debian|bookworm|Debian
http://other.test/node|nodistro|nodistro
"""

UNITS = """\
MainPID=41
Id=consul.service
LoadState=loaded
ActiveState=active

MainPID=0
Id=citadel-agent.service
LoadState=not-found
ActiveState=inactive

MainPID=43
Id=dnsmasq.service
LoadState=loaded
ActiveState=failed
"""


def test_the_image_comes_from_the_mirrors_of_the_machines_apt() -> None:
    assert mirror_lines(TARGETS, "bookworm") == [
        "deb http://mirror.test/debian bookworm main",
        "deb http://mirror.test/debian bookworm-updates main",
        "deb http://mirror.test/debian-security bookworm-security main",
    ]


def test_a_machine_without_a_mirror_of_the_suite_has_none() -> None:
    assert mirror_lines(TARGETS, "trixie") == []
    assert mirror_lines("", "bookworm") == []


def test_units_are_read_with_their_short_names() -> None:
    expected = {"consul": "active", "agent": "not installed", "dnsmasq.service": "failed"}
    assert parse_units(UNITS) == expected


def test_a_unit_whose_process_is_stopped_is_paused_though_systemd_calls_it_active() -> None:
    assert parse_units(UNITS, frozen=["41"])["consul"] == "paused"


def test_no_answer_of_systemd_gives_no_units() -> None:
    assert parse_units("") == {}


def test_the_table_is_aligned_and_says_who_leads() -> None:
    rows = [
        NodeStatus("server-1", "10.77.0.11", "running", "alive", {"consul": "active"}, (), ("consul", "citadel")),
        NodeStatus("client-1", "10.77.0.21", "running", "failed", {"consul": "paused"}, ("server-1",), ()),
        NodeStatus("client-2", "10.77.0.22", "absent", "-", {}, (), ()),
    ]
    heading, first, second, third = table(rows).splitlines()
    assert first.split() == ["server-1", "10.77.0.11", "running", "alive", "consul:active", "-", "consul,citadel"]
    assert second.split() == ["client-1", "10.77.0.21", "running", "failed", "consul:paused", "server-1"]
    assert third.split() == ["client-2", "10.77.0.22", "absent", "-", "-", "-"]
    assert {line.index("10.77") for line in (first, second, third)} == {heading.index("ADDRESS")}


def test_vagrants_states_are_read_by_machine() -> None:
    text = "1700000000,server-1,provider-name,libvirt\n1700000000,server-1,state,running\n1700000000,,ui,info,a,b\n"
    assert parse_states(text) == {"server-1": "running"}


@pytest.mark.parametrize(
    ("route", "taken"),
    [
        ({"dst": "10.77.0.0/24", "dev": "br0"}, "10.77.0.0/24 through br0"),
        ({"dst": "10.0.0.0/8", "gateway": "10.1.1.1"}, "10.0.0.0/8 through a gateway"),
        ({"dst": "10.77.0.11", "dev": "tun0"}, "10.77.0.11/32 through tun0"),
        ({"dst": "10.78.0.0/24", "dev": "br0"}, None),
        ({"dst": "default", "dev": "eth0"}, None),
        ({"dst": "0.0.0.0/0", "dev": "eth0"}, None),
        ({"dst": "10.77.0.1", "dev": "br0", "type": "local"}, None),
    ],
)
def test_a_network_that_the_machine_uses_already_is_found(route: dict[str, object], taken: str | None) -> None:
    assert overlapping(ipaddress.IPv4Network("10.77.0.0/24"), [route]) == taken


def test_only_packages_whose_programs_are_missing_are_wanted() -> None:
    here = {"vagrant": "/x", "ssh": "/x", "docker": "/x"}
    assert missing_packages("docker", here.get) == ["docker.io", "iptables", "mmdebstrap", "openssh-client"]
    assert missing_packages("libvirt", here.get) == ["openssh-client", "rsync"]
    assert missing_packages("docker", lambda name: f"/bin/{name}") == []


def test_a_failing_program_is_quoted_with_its_last_words() -> None:
    with pytest.raises(LabError) as raised:
        run(["sh", "-c", "echo to standard error >&2; exit 3"])
    assert str(raised.value).splitlines()[0].startswith("exit 3: sh -c")
    assert "  to standard error" in str(raised.value)


def test_a_long_output_is_cut_to_its_end() -> None:
    message = failure(["x"], 1, "\n".join(str(number) for number in range(100)))
    assert "  99" in message
    assert "  12" not in message


def test_a_missing_program_is_named() -> None:
    with pytest.raises(LabError, match="no-such-program-here is not installed"):
        run(["no-such-program-here"])


def test_a_program_that_hangs_is_ended() -> None:
    with pytest.raises(LabError, match=r"no end after 0\.1 s: sleep 60"):
        run(["sleep", "60"], timeout_seconds=0.1)
