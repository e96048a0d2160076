"""The plots of a run as SVG: starts and stops by manager and graph, and how long what died is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from figures import Figure
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullLocator
from start_stop import MANAGERS, OURS, Row

COLOURS = {
    OURS: "#0b6e4f",
    "systemd": "#3066be",
    "docker-compose": "#d1495b",
    "supervisord, by depth": "#edae49",
    "process-compose": "#8d6a9f",
}
MARKERS = {OURS: "o", "systemd": "s", "docker-compose": "^", "supervisord, by depth": "D", "process-compose": "v"}
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "citadel",  # the same figures give the same file
    "figure.facecolor": "white",
}


def draw(rows: Sequence[Row], deaths: Sequence[Figure], failovers: Sequence[Figure], folder: Path) -> list[Path]:
    """Draw what there are figures for; returns the files."""
    ways = ("start", "stop") if any(not row.why for row in rows) else ()
    with mpl.rc_context(STYLE):
        made = [_draw_way(rows, way, folder / f"benchmarks-{way}.svg") for way in ways]
        if deaths or failovers:
            made.append(_draw_recovery(deaths, failovers, folder / "benchmarks-recovery.svg"))
    return made


def _draw_way(rows: Sequence[Row], way: str, path: Path) -> Path:
    """Dots: a line for each graph, further right is further from the critical path. Only what kept every edge."""
    graphs = list(dict.fromkeys(row.graph.name for row in rows))
    kept = [row for row in rows if not row.why and not row.broken_edges(way)]
    figure, axes = plt.subplots(figsize=(8.2, 0.5 * len(graphs) + 1.5))
    for manager in [name for name in MANAGERS if any(row.manager == name for row in kept)]:
        mine = [row for row in kept if row.manager == manager]
        axes.scatter(
            [row.efficiency(way) for row in mine],
            [graphs.index(row.graph.name) for row in mine],
            s=64, color=COLOURS.get(manager, "#777777"), marker=MARKERS.get(manager, "x"), label=manager,
            zorder=4 if manager == OURS else 3, alpha=0.9,
        )  # fmt: skip
    axes.axvline(1.0, color="#555555", linewidth=1)
    axes.set_yticks(range(len(graphs)), graphs)
    axes.set_ylim(len(graphs) - 0.5, -0.5)
    most = max((row.efficiency(way) for row in kept), default=2.0)
    _log_axis(axes, (0.96, max(2.0, most * 1.2)), (1, 1.5, 2, 3, 5, 10, 20, 50, 100), "{:g}×".format)
    axes.set_xlabel(f"{way}: wall time ÷ critical path of the services themselves (1 = nothing lost)", color="#333333")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, frameon=False, handletextpad=0.2)
    _save(figure, path)
    return path


def _draw_recovery(deaths: Sequence[Figure], failovers: Sequence[Figure], path: Path) -> Path:
    """A dot at the median and a bar to the 95th percentile for each, on one logarithmic axis."""
    panels = [
        (title, found)
        for title, found in (
            ("a service is killed → its replacement runs", deaths),
            ("the leader is lost → its successor acts", failovers),
        )
        if found
    ]
    lines = [len(found) for _, found in panels]
    figure, grid = plt.subplots(
        len(panels), figsize=(8.2, 0.36 * sum(lines) + 0.7 * len(panels) + 0.6), sharex=True, squeeze=False,
        gridspec_kw={"height_ratios": lines, "hspace": 0.9 / (sum(lines) / len(lines))},
    )  # fmt: skip
    everything = [*deaths, *failovers]
    least, most = min(found.median_ms for found in everything), max(found.p95_ms for found in everything)
    for axes, (title, found) in zip(grid[:, 0], panels, strict=True):
        axes.set_title(title, loc="left", fontsize=10, color="#333333")
        _draw_figures(axes, found)
        _log_axis(axes, (least / 1.5, most * 3), [10.0**n for n in range(6)], _duration)
    grid[-1, 0].set_xlabel("median (dot) to 95th percentile (bar)", color="#333333")
    _save(figure, path)
    return path


def _draw_figures(axes: Any, figures: Sequence[Figure]) -> None:
    for line, found in enumerate(figures):
        colour = COLOURS[OURS] if found.name.startswith(OURS) else "#777777"
        axes.plot([found.median_ms, found.p95_ms], [line, line], color=colour, linewidth=4, alpha=0.45)
        axes.scatter([found.median_ms], [line], color=colour, s=48, zorder=3)
        axes.annotate(_duration(found.median_ms), (found.p95_ms, line), (8, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(figures)), [found.name for found in figures])
    axes.set_ylim(len(figures) - 0.5, -0.5)


def _log_axis(axes: Any, limits: tuple[float, float], ticks: Sequence[float], text: Callable[[float], str]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.set_xticks([tick for tick in ticks if limits[0] <= tick <= limits[1]])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axes.grid(axis="both", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def _duration(milliseconds: float) -> str:
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1000:.1f} s" if milliseconds < 10_000 else f"{milliseconds / 1000:.0f} s"


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
