"""The screen of ``citadel health``."""

from __future__ import annotations

from citadel_consul.cli.ailments import ailments
from citadel_consul.cli.looking import Look
from citadel_consul.cli.screen import BLANK, Line, Piece, columns, word
from citadel_consul.cli.spans import clock, span
from citadel_consul.core.answers.health import ServiceHealth, health_answer


def health_lines(look: Look) -> list[Line]:
    """The stack in one line, then a row for each service."""
    answer = health_answer(look.snapshot, look.at, look.measured)
    summary = answer.health_summary
    score = "no services" if summary.health_score is None else f"{summary.health_score:g} % of services healthy"
    critical = "all critical ones are" if summary.critical_services_healthy else "not all critical ones are"
    head = (Piece(f"{look.snapshot.stack}  ", bold=True), word(str(summary.overall_status), bold=True), Piece("  "))
    lines = [Line(head, f"{score}, {critical}   {clock(look.at)}")]
    if not answer.service_health:
        return lines
    reasons = {a.service: "; ".join(a.reasons) for a in ailments(look.snapshot, look.outputs, look.at)}
    rows = [tuple(Piece(text, dim=True) for text in ("service", "status", "score", "answers in", "up for"))]
    texts = [""]
    for name, service in answer.service_health.items():
        value = "-" if service.health_score is None else f"{service.health_score:g}"
        response = "-" if service.response_time_ms is None else _milliseconds(service.response_time_ms)
        uptime = "-" if service.uptime_seconds is None else span(service.uptime_seconds)
        rows.append((Piece(name), word(str(service.status)), Piece(value), Piece(response), Piece(uptime)))
        texts.append("; ".join(text for text in (reasons.get(name, ""), service.detail, _figures(service)) if text))
    return [*lines, BLANK, *columns(rows, texts)]


def _milliseconds(value: float) -> str:
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def _figures(service: ServiceHealth) -> str:
    """What the service reports of itself."""
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in service.figures.items())
