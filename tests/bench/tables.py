"""The results as text for people, in tables that Markdown understands as well."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from critical_path import hop_seconds
from floors import Floors
from start_stop import AIMS, OURS, Row


def efficiency_table(rows: Sequence[Row], way: str) -> str:
    """A line for each graph, a column for each manager. What broke edges did not do the same, and is in brackets."""
    managers = list(dict.fromkeys(row.manager for row in rows))
    by_graph: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_graph.setdefault(row.graph.name, {})[row.manager] = row
    lines = [
        f"| {way}: wall ÷ critical path | path | {' | '.join(managers)} | best in order |",
        f"| --- | ---: |{' ---: |' * len(managers)} --- |",
    ]
    for graph, found in by_graph.items():
        path = next((f"{r.ways(way)[0].nominal_path_seconds:.2f} s" for r in found.values() if not r.why), "–")
        cells = [_cell(found.get(manager), way) for manager in managers]
        lines.append(f"| {graph} | {path} | {' | '.join(cells)} | {best_in_order(list(found.values()), way)} |")
    return "\n".join(lines)


def best_in_order(rows: Sequence[Row], way: str) -> str:
    """Who came closest to the critical path among those that kept every edge."""
    kept = [row for row in rows if not row.why and not row.broken_edges(way)]
    return min(kept, key=lambda row: row.efficiency(way)).manager if kept else "–"


def _cell(row: Row | None, way: str) -> str:
    if row is None or row.why:
        return "–"
    if broken := row.broken_edges(way):
        return f"({row.efficiency(way):.2f}; {broken} of {len(row.graph.edges)} edges broken)"
    return f"{row.efficiency(way):.2f}"


def reasons(rows: Sequence[Row]) -> str:
    """Why what is missing was not measured."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.why:
            found.setdefault((row.manager, row.why), []).append(row.graph.name)
    return "\n".join(f"- {manager}: {why} ({', '.join(graphs)})" for (manager, why), graphs in found.items())


def aims_table(rows: Sequence[Row]) -> str:
    """What citadel is held to, and whether it was met in this run."""
    lines = ["| aim | wall ÷ critical path | aimed at | met |", "| --- | ---: | ---: | --- |"]
    for row in rows:
        if row.manager == OURS and not row.why and (aim := AIMS.get(row.graph.name)) is not None:
            reached = row.efficiency("start")
            lines.append(
                f"| start of {row.graph.name} | {reached:.3f} | ≤ {aim} | {'yes' if reached <= aim else 'no'} |"
            )
    return "\n".join(lines)


def hops_table(rows: Sequence[Row]) -> str:
    """What each service of a chain cost on top of its own time, of those that kept its order."""
    chains = [row for row in rows if row.graph.name.startswith("chain") and not row.why]
    kept = [row for row in chains if not row.broken_edges("start")]
    lines = ["| cost of a hop of the chain | start | stop |", "| --- | ---: | ---: |"]
    return "\n".join([*lines, *(f"| {row.manager} | {_hop(row, 'start')} | {_hop(row, 'stop')} |" for row in kept)])


def _hop(row: Row, way: str) -> str:
    hops = len(row.graph.services)
    seconds = statistics.median(hop_seconds(w.wall_seconds, w.path_seconds, hops) for w in row.ways(way))
    return f"{seconds * 1000:.1f} ms"


def floors_table(floors: Floors) -> str:
    """What the tools take at least, in milliseconds."""
    rows = [
        ("a KV write", floors.kv_write_seconds),
        ("a KV write until a watch of the key answers", floors.kv_watch_seconds),
        ("a registration until the catalog shows it passing", floors.visible_seconds),
        ("a hop that consists of one registration and two watched writes", floors.hop_seconds),
    ]
    return "\n".join(["| floors | ms |", "| --- | ---: |", *(f"| {name} | {s * 1000:.1f} |" for name, s in rows)])
