"""The docker provider's image, built on this machine in two layers, since no image can be assumed to be at hand.

``base`` is Debian with the packages of provision/packages.txt, from the mirror that the machine's apt uses: half a
minute, and again only when the packages change. ``node`` is base plus the payload's Consul and citadel: seconds, when
the project changed. Both are tagged with the checksum of what they are made of.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from . import layout
from .command import failure, run, search_path
from .errors import LabError
from .host import Report

BASE = "citadel-lab/base"
NODE = "citadel-lab/node"
MIRROR_VARIABLE = "CITADEL_LAB_MIRROR"
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")


def ensure_image(base: str, payload: str, report: Report) -> str:
    """Have the image of a node, note it for the Vagrantfile, and return its id (``sha256:…``)."""
    tag = f"{NODE}:{_short(base, payload)}"
    if image_id(tag) is None:
        report(f"building the image of a node ({tag})")
        _build_node(base, tag)
        _prune(NODE, tag)
    image = image_id(tag)
    if image is None:
        raise LabError(f"the image {tag} was built and is not there")
    layout.IMAGE.write_text(image + "\n")
    return image


def remove_images() -> list[str]:
    """Remove the lab's images; returns their tags."""
    tags = [tag for repository in (NODE, BASE) for tag in _tags(repository)]
    for tag in tags:
        run(["docker", "image", "rm", tag])
    layout.IMAGE.unlink(missing_ok=True)
    return tags


def image_id(tag: str) -> str | None:
    """The id of a local image, or None."""
    done = run(["docker", "image", "inspect", "--format", "{{.Id}}", tag], check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def mirror_lines(targets: str, suite: str) -> list[str]:
    """apt's source lines for ``suite``, its updates and its security fixes.

    ``targets`` is what ``apt-get indextargets`` prints in the format SITE|CODENAME|ORIGIN.
    """
    sites: dict[str, str] = {}
    for line in targets.splitlines():
        site, codename, origin = line.split("|")
        if origin == "Debian":
            sites.setdefault(codename, site)
    if suite not in sites:
        return []
    wanted = [name for name in (suite, f"{suite}-updates", f"{suite}-security") if name in sites]
    return [f"deb {sites[name]} {name} main" for name in wanted]


def packages() -> list[str]:
    """The packages of a node."""
    return (layout.PROVISION / "packages.txt").read_text().split()


def ensure_base(suite: str, report: Report) -> str:
    """Have the base image of a Debian suite; returns its tag."""
    tag = f"{BASE}:{_short(suite, *packages(), *LEFT_OUT)}"
    if image_id(tag) is None:
        report(f"building the base image ({tag}): Debian {suite}")
        _build_base(suite, tag)
        _prune(BASE, tag)
    return tag


def _build_base(suite: str, tag: str) -> None:
    words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages())}"]
    words += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    words += [suite, "-", *_sources(suite)]
    environment = {**os.environ, "PATH": search_path()}
    log = layout.STATE / "mmdebstrap.log"
    with log.open("w") as errors:
        tree = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, env=environment)
        try:
            command = ["docker", "import", "--change", 'CMD ["/sbin/init"]', "-", tag]
            imported = subprocess.run(command, stdin=tree.stdout, capture_output=True, text=True, check=False)
        finally:
            if tree.stdout is not None:
                tree.stdout.close()
            status = tree.wait()
    if status != 0:
        run(["docker", "image", "rm", tag], check=False)
        raise LabError(failure(words, status, log.read_text(errors="replace")))
    if imported.returncode != 0:
        raise LabError(failure(command, imported.returncode, imported.stderr))


def _sources(suite: str) -> list[str]:
    named = os.environ.get(MIRROR_VARIABLE)
    if named:
        return [f"deb {named} {suite} main"]
    form = "$(SITE)|$(CODENAME)|$(ORIGIN)"
    done = run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"], check=False)
    lines = mirror_lines(done.stdout, suite) if done.returncode == 0 else []
    if not lines:
        raise LabError(
            f"no mirror of Debian {suite} is known to this machine's apt (apt-get update may be all it needs): "
            f"name one in {MIRROR_VARIABLE}"
        )
    return lines


def _build_node(base: str, tag: str) -> None:
    volume = f"{layout.PAYLOAD}:/opt/lab:ro"
    create = ["docker", "create", "--pull=never", "--network=none", "--volume", volume]
    container = run([*create, base, "/opt/lab/provision/image.sh"]).stdout.strip()
    try:
        run(["docker", "start", "--attach", container])
        run(["docker", "commit", "--change", 'CMD ["/sbin/init"]', container, tag])
    finally:
        run(["docker", "rm", "--force", "--volumes", container], check=False)


def _prune(repository: str, keep: str) -> None:
    """Remove the older images of a repository; one that a container still uses stays."""
    for tag in _tags(repository):
        if tag != keep:
            run(["docker", "image", "rm", tag], check=False)


def _tags(repository: str) -> list[str]:
    return run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository]).stdout.split()


def _short(*parts: str | Path) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:12]
