"""The screen of ``citadel doctor``: one line for each area, and below it what is wrong there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from citadel_consul.cli.screen import BLANK, Line, Piece
from citadel_consul.core.finding import Finding, Report, Severity

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow"}
_MARKS = {Severity.ERROR: "✘", Severity.WARNING: "!"}
_WIDTH = 15


def report_lines(reports: Iterable[Report]) -> list[Line]:
    """All reports, and how many findings there are."""
    known = tuple(reports)
    lines = [line for report in known for line in _report(report)]
    findings = [finding for report in known for finding in report.findings]
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    if not findings:
        return [*lines, BLANK, Line((Piece("nothing is wrong", fg="green"),))]
    return [*lines, BLANK, Line(text=f"{_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}")]


def _report(report: Report) -> Iterator[Line]:
    mark, colour = _verdict(report)
    lead = (Piece(f"{mark} ", fg=colour), Piece(report.area.ljust(_WIDTH), bold=True))
    yield Line(lead, f"not examined: {report.unknown}" if report.unknown else report.summary)
    alike = groupby(report.findings, key=lambda finding: (finding.code, finding.remedy))
    for (_, remedy), findings in alike:
        yield from _alike(tuple(findings), remedy)


def _verdict(report: Report) -> tuple[str, str]:
    if report.unknown:
        return "?", "magenta"
    worst = min((finding.severity for finding in report.findings), key=list(Severity).index, default=None)
    return ("✔", "green") if worst is None else (_MARKS[worst], _COLOURS[worst])


def _alike(findings: tuple[Finding, ...], remedy: str) -> Iterator[Line]:
    """Findings of one kind, each with the command that mends it, and once what to do about all of them."""
    for finding in findings:
        code = Piece(f"{finding.code}  ", fg=_COLOURS[finding.severity])
        yield Line((Piece("    "), code), f"{finding.place}: {finding.message}")
        if finding.command:
            yield Line((Piece("      $ "), Piece(finding.command)))
    if remedy:
        yield Line((Piece("      "),), remedy, dim=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
