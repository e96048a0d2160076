"""The forwarders of docs/dns.md, each set up by the file that an operator copies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from forwarded_site import CONSUL_D, Site
from netspace import NoNamespaces, until

_USER = "systemd-resolve"
_ID = 64990

# What an installed systemd-resolved has: its user, its folder in /run, its configuration.
_RESOLVED = """
set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/resolve
chown "$3:$3" /run/systemd/resolve
mount --bind "$1/systemd" /etc/systemd
exec "$2"
"""


def dnsmasq(site: Site) -> None:
    """dnsmasq, with the recipe as its only configuration."""
    command: list[str | Path] = [
        site.packages.program("dnsmasq"), "--keep-in-foreground", f"--conf-file={CONSUL_D / 'dns' / 'dnsmasq.conf'}",
        "--log-facility=-", "--user=root", "--pid-file=",
    ]  # fmt: skip
    site.space.name_server("127.0.0.1")
    process = site.space.spawn(command, "dnsmasq", site.packages.environ)
    until(lambda: process.poll() is not None or bool(site.addresses("consul.service.consul")), "dnsmasq to answer")
    assert process.poll() is None, site.space.log("dnsmasq")


def systemd_resolved(site: Site) -> None:
    """systemd-resolved, with the recipe in the folder of its drop-ins."""
    if os.geteuid() != 0:
        raise NoNamespaces("systemd-resolved gives up root for a user of its own, so only root can try it")
    if not Path("/etc/systemd").is_dir():
        raise NoNamespaces("there is no /etc/systemd here, in whose place its configuration would be")
    home = site.space.folder / "resolved"
    drop_ins = home / "systemd" / "resolved.conf.d"
    drop_ins.mkdir(parents=True)
    (drop_ins / "consul.conf").write_text((CONSUL_D / "dns" / "systemd-resolved.conf").read_text())
    for name, entry in (("passwd", f"{_USER}:x:{_ID}:{_ID}::/:/usr/sbin/nologin"), ("group", f"{_USER}:x:{_ID}:")):
        (home / name).write_text(f"{Path('/etc', name).read_text()}{entry}\n")
    program = site.packages.program("systemd-resolved")
    shell: list[str | Path] = ["/bin/sh", "-c", _RESOLVED, "set-up", home, program, str(_ID)]
    site.space.name_server("127.0.0.53")
    process = site.space.spawn(["unshare", "--mount", "--", *shell], "resolved", site.packages.environ)
    until(lambda: process.poll() is not None or bool(site.addresses("consul.service.consul")), "resolved to answer")
    assert process.poll() is None, site.space.log("resolved")


FORWARDERS: dict[str, tuple[tuple[str, ...], Callable[[Site], None]]] = {
    "dnsmasq": (("dnsmasq-base", "bind9-dnsutils"), dnsmasq),
    "systemd-resolved": (("systemd-resolved", "bind9-dnsutils"), systemd_resolved),
}
"""By name: the packages that it takes, and how it is started."""
