"""What there is at a moment: what each process holds, what lies in Consul, what lies in the folders of the node agents.

A measure has a name like ``orchestrator o1: sockets`` or ``keys below operations``. What cannot be had at the moment (a
paused process does not answer, a Consul that is down neither) is left out of the sample.
"""

from __future__ import annotations

import stat
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from consul_process import ConsulProcess
from prometheus_client.parser import text_string_to_metric_families

ANSWER_SECONDS = 5.0
TCP_ESTABLISHED = "01"

Census = Mapping[str, float]


@dataclass(frozen=True)
class Subject:
    """A process that lives through everything. ``metrics`` is the URL at which it shows what it holds."""

    name: str
    pid: int
    metrics: str


def of_process(subject: Subject, consul_ports: frozenset[int]) -> Iterator[tuple[str, float]]:
    """What a process holds, as the kernel has it, and how many tasks its event loop has."""
    folder = Path(f"/proc/{subject.pid}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    yield "resident KiB", float(status["VmRSS"].split()[0])
    yield "threads", float(status["Threads"])
    kinds, inodes = _descriptors(folder)
    yield "descriptors", float(kinds.total())
    for kind in ("socket", "pipe", "pidfd", "file"):
        yield f"{kind}s", float(kinds[kind])
    yield "connections to Consul", float(_connections(folder, inodes, consul_ports))
    yield "children", float(len((folder / "task" / str(subject.pid) / "children").read_text().split()))
    shown = _shown(subject.metrics)
    for name, measure in (("citadel_tasks", "tasks"), ("citadel_allocated_blocks", "blocks of memory")):
        if name in shown:
            yield measure, shown[name]


def of_consul(server: ConsulProcess, stack: str) -> Iterator[tuple[str, float]]:
    """What lies in Consul: keys and bytes by their place, sessions, services, checks."""
    root = f"citadel/{stack}/"
    keys: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in server.request("GET", f"/v1/kv/{root}?recurse") or ():
        place = entry["Key"].removeprefix(root).partition("/")[0]
        keys[place] += 1
        sizes[place] += len(entry["Value"] or "") * 3 // 4
    for place, count in keys.items():
        yield f"keys below {place}", float(count)
        yield f"bytes below {place}", float(sizes[place])
    yield "keys of others", float(len(server.request("GET", "/v1/kv/?keys"))) - keys.total()
    yield "sessions", float(len(server.request("GET", "/v1/session/list")))
    yield "services in the catalog", float(len(server.request("GET", "/v1/catalog/services")))
    yield "checks", float(len(server.request("GET", "/v1/health/state/any")))


def of_folder(name: str, folder: Path) -> Iterator[tuple[str, float]]:
    """How many files there are, by the folder below, and their bytes."""
    files: Counter[str] = Counter()
    size = 0
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            files[path.relative_to(folder).parts[0] if path.parent != folder else "itself"] += 1
            size += status.st_size
    for part, count in files.items():
        yield f"files in {name}/{part}", float(count)
    yield f"bytes in {name}", float(size)


def _descriptors(folder: Path) -> tuple[Counter[str], set[str]]:
    kinds: Counter[str] = Counter()
    sockets = set()
    for link in (folder / "fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        kind = target.partition(":")[0] if ":" in target else "file"
        if kind == "anon_inode":
            kind = target.removeprefix("anon_inode:").strip("[]")
        kinds[kind] += 1
        if kind == "socket":
            sockets.add(target.removeprefix("socket:[").removesuffix("]"))
    return kinds, sockets


def _connections(folder: Path, inodes: set[str], ports: frozenset[int]) -> int:
    """How many of the sockets are connections to one of ``ports``."""
    rows = (line.split() for line in (folder / "net" / "tcp").read_text().splitlines()[1:])
    return sum(
        row[9] in inodes and row[3] == TCP_ESTABLISHED and int(row[2].partition(":")[2], 16) in ports for row in rows
    )


def _shown(url: str) -> dict[str, float]:
    """What a process shows of itself; nothing if it does not answer now."""
    try:
        with _direct.open(url, timeout=ANSWER_SECONDS) as response:
            text = response.read().decode()
    except (OSError, ValueError):
        return {}
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


# Never through a proxy: everything is on loopback.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
