"""What a drill comes to: lines, phases, and the assessment of the whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

TITLE = "Orchestration Full Cycle Test Results:"
PHASES = {
    1: "Service Discovery",
    2: "Startup Coordination",
    3: "Health Monitoring",
    4: "Recovery Testing",
    5: "Shutdown Coordination",
}
"""The phases by their numbers."""
MOST_REASONS = 4
"""How many reasons a line names before it counts the rest."""


class Result(StrEnum):
    """``not_checked``: there was nothing to check it by, so it neither passes nor fails."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_CHECKED = "not_checked"


MARKS = {Result.PASSED: "✅", Result.FAILED: "❌", Result.NOT_CHECKED: "➖"}


@dataclass(frozen=True, slots=True)
class Line:
    """One check. ``figure`` is what was measured, ``reason`` why it failed or could not be checked."""

    text: str
    result: Result
    figure: str = ""
    reason: str = ""

    def __str__(self) -> str:
        shown = f"{MARKS[self.result]} {self.text}"
        if self.figure:
            shown += f" ({self.figure})"
        return f"{shown}: {self.reason}" if self.reason else shown


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase that was run. ``seconds`` is how long it took with all that it had to do."""

    number: int
    lines: tuple[Line, ...]
    seconds: float

    @property
    def title(self) -> str:
        return PHASES[self.number]

    @property
    def result(self) -> Result:
        """Failed if any line did; not checked if one of them was not; else passed."""
        return overall(line.result for line in self.lines)


@dataclass(frozen=True, slots=True)
class Report:
    """A whole drill. ``trouble`` is what kept the stack from being left as it was found, if anything did."""

    stack: str
    started_at: float
    phases: tuple[Phase, ...]
    trouble: str = ""

    @property
    def failed(self) -> bool:
        """Whether any line failed, or the stack could not be left as it was found."""
        return bool(self.trouble) or any(phase.result is Result.FAILED for phase in self.phases)


def line(text: str, problems: Iterable[str], figure: str = "") -> Line:
    """A line that passes if there are no ``problems``."""
    found = list(dict.fromkeys(problems))
    if not found:
        return Line(text, Result.PASSED, figure)
    shown = "; ".join(found[:MOST_REASONS])
    rest = len(found) - MOST_REASONS
    return Line(text, Result.FAILED, figure, f"{shown}; and {rest} more" if rest > 0 else shown)


def unchecked(text: str, reason: str) -> Line:
    """A line that could not be checked."""
    return Line(text, Result.NOT_CHECKED, reason=reason)


def overall(results: Iterable[Result]) -> Result:
    """The result of several together."""
    found = set(results)
    if Result.FAILED in found:
        return Result.FAILED
    return Result.PASSED if found == {Result.PASSED} else Result.NOT_CHECKED


def assessment(phases: Sequence[Phase]) -> tuple[Line, ...]:
    """The overall assessment, which follows from the phases; what rests on a phase that was not run is not checked."""
    by_number = {phase.number: phase for phase in phases}

    def judged(text: str, numbers: Iterable[int]) -> Line:
        missing = [str(number) for number in numbers if number not in by_number]
        bad = [f"phase {n}" for n in numbers if n in by_number and by_number[n].result is Result.FAILED]
        vague = [f"phase {n}" for n in numbers if n in by_number and by_number[n].result is Result.NOT_CHECKED]
        if bad:
            return line(text, [f"{place} failed" for place in bad])
        if missing or vague:
            reasons = [f"phase {number} was not run" for number in missing] + [
                f"{v} was not all checked" for v in vague
            ]
            return unchecked(text, "; ".join(reasons))
        return line(text, ())

    return (
        judged("Service orchestration fully operational", (1, 2, 3)),
        judged("All coordination mechanisms working", (2, 5)),
        judged("Recovery mechanisms functional", (4,)),
        _performance(by_number.get(2)),
        judged("System ready for production use", tuple(PHASES)),
    )


def _performance(startup: Phase | None) -> Line:
    text = "Performance meets requirements"
    timed = (
        next((each for each in startup.lines if each.text.startswith("Total startup time")), None) if startup else None
    )
    if timed is None:
        return unchecked(text, "phase 2 was not run")
    return line(text, [f"startup: {timed.reason}"] if timed.result is Result.FAILED else ())


# --- as text and as data ----------------------------------------------------------------------------------------


def heading() -> Iterator[str]:
    """The lines above the first phase."""
    yield TITLE
    yield "=" * (len(TITLE) - 1)


def phase_text(phase: Phase) -> Iterator[str]:
    """A phase as lines for people."""
    yield ""
    yield f"Test Phase {phase.number}: {phase.title}"
    yield from map(str, phase.lines)


def assessment_text(report: Report) -> Iterator[str]:
    """The end of a report as lines for people."""
    yield ""
    yield "Overall Assessment:"
    yield from map(str, assessment(report.phases))
    if report.trouble:
        yield ""
        yield f"{MARKS[Result.FAILED]} The stack is not as it was found: {report.trouble}"


def answer(report: Report) -> dict[str, object]:
    """The report for programs."""
    return {
        "stack": report.stack,
        "passed": not report.failed,
        "started_at": report.started_at,
        "phases": [
            {
                "number": phase.number,
                "title": phase.title,
                "result": phase.result,
                "seconds": round(phase.seconds, 3),
                "lines": [_line_answer(each) for each in phase.lines],
            }
            for phase in report.phases
        ],
        "assessment": [_line_answer(each) for each in assessment(report.phases)],
        "trouble": report.trouble or None,
    }


def _line_answer(each: Line) -> dict[str, object]:
    return {"text": each.text, "result": each.result, "figure": each.figure or None, "reason": each.reason or None}
