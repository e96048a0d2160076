"""What a node agent that goes away for ever leaves behind on this machine: running processes, and data of services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from citadel_consul.backends import procfs
from citadel_consul.backends.journal import Journal, UnreadableRecord
from citadel_consul.core.model import Instance


def running_processes(state: Path) -> tuple[Instance, ...]:
    """The instances whose processes a node agent with this state folder started, and which run."""
    return tuple(
        instance
        for stack in _folders(state)
        for instance in Journal(state, stack.name).instances()
        if _runs(Journal(state, stack.name), instance)
    )


def data_folders(state: Path) -> tuple[Path, ...]:
    """The folders of services' own data in which something is."""
    nodes = (node for stack in _folders(state) for node in _folders(stack))
    return tuple(node / "data" for node in nodes if any(_entries(node / "data")))


def state_entries(state: Path) -> Iterator[Path]:
    """All that is below ``state`` but the data of services and what leads there; what lies deeper comes first."""
    kept = data_folders(state)
    leading = {parent for folder in kept for parent in folder.parents}
    for path in sorted(state.rglob("*"), key=lambda p: len(p.parts), reverse=True):
        if path not in leading and not any(path == folder or folder in path.parents for folder in kept):
            yield path
    if state.exists() and state not in leading:
        yield state


def processes_of(role: str) -> tuple[int, ...]:
    """The processes that are a ``citadel`` in a role (``orchestrator``, ``agent``), whoever started them."""
    return tuple(process.pid for process in procfs.processes() if _is_role(process.pid, role))


def _is_role(pid: int, role: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word.endswith(b"/citadel") and words[i + 1 : i + 2] == [role.encode()] for i, word in enumerate(words))


def _runs(journal: Journal, instance: Instance) -> bool:
    try:
        record = journal.read(instance)
    except UnreadableRecord:
        return True  # nobody can tell: better said once too often
    if record is None or record.identity is None or record.exit is not None or record.boot_id != procfs.boot_id():
        return False
    process = procfs.read(record.identity[0])
    return process is not None and process.identity == record.identity and not process.ended


def _folders(path: Path) -> list[Path]:
    return [entry for entry in _entries(path) if entry.is_dir() and not entry.is_symlink()]


def _entries(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else []
