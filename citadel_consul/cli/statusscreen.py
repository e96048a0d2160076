"""The screen of ``citadel status``: what is wrong first, then what is under way, then everything else."""

from __future__ import annotations

from collections.abc import Sequence

from citadel_consul.cli.ailments import Ailment, ailments, treatment_of
from citadel_consul.cli.looking import Look
from citadel_consul.cli.screen import BLANK, Line, Piece, columns, heading, word
from citadel_consul.cli.spans import clock, span
from citadel_consul.core.answers.health import uptime_seconds
from citadel_consul.core.answers.problems import StackProblem
from citadel_consul.core.answers.status import OrchestratorStatus, StatusAnswer, status_answer
from citadel_consul.core.health import Status, instance_status, service_statuses
from citadel_consul.core.incident import STACK, Incident
from citadel_consul.core.operation import Operation, OperationState, StepState
from citadel_consul.core.snapshot import Snapshot

MOST_SERVICES = 40
"""Up to so many services are listed one by one; what is not healthy is listed in any case."""
MOST_NAMES = 5
MOST_INCIDENTS = 5
RECENT_SECONDS = 3600.0
"""For how long an incident is shown that is over."""


def answer_of(look: Look) -> StatusAnswer:
    """The answer of the API's ``status`` to the same question."""
    return status_answer(look.snapshot, look.at, leadership=look.leadership, standbys=look.standbys)


def status_lines(look: Look) -> list[Line]:
    """The whole screen."""
    answer = answer_of(look)
    found = ailments(look.snapshot, look.outputs, look.at)
    sections = (
        _wrong(look, answer.orchestrator_status.problems, found),
        _under_way(look),
        _incidents(look, found),
        _held(look),
        _services(look),
        _control(look, answer.orchestrator_status),
    )
    lines = [_head(look, answer)]
    for section in sections:
        lines += [BLANK, *section] if section else []
    return lines


def _head(look: Look, answer: StatusAnswer) -> Line:
    orchestration, overall = answer.orchestrator_status, answer.system_health.overall_status
    if not orchestration.managed_services:
        text = "no services: citadel apply FILE writes them"
        return Line((Piece(look.snapshot.stack, bold=True), Piece("  ")), text)
    text = f"{orchestration.healthy_services} of {orchestration.managed_services} services healthy"
    others = [f"{count} {name}" for name, count in orchestration.services_by_status.items() if name != Status.HEALTHY]
    if others:
        text += f" ({', '.join(others)})"
    name = Piece(f"{look.snapshot.stack}  ", bold=True)
    return Line((name, word(str(overall), bold=True), Piece("  ")), f"{text}   {clock(look.at)}")


# --- what is wrong ----------------------------------------------------------------------------------------------


def _wrong(look: Look, problems: Sequence[StackProblem], found: Sequence[Ailment]) -> list[Line]:
    """Without a leader nothing else can be mended, so that comes first; then causes, then what suffers from them."""
    if not problems and not found:
        if any(not incident.over for incident in look.snapshot.incidents.values()):
            return [Line((Piece("nothing fails now", fg="green"),), "; what did a moment ago stands below")]
        return [Line((Piece("nothing is wrong", fg="green"),))] if look.snapshot.specs else []
    told = {ailment.service for ailment in found}  # what is done about a service stands with the service
    others = [p for p in problems if not _is_urgent(p) and not (p.kind == "recovery" and p.place in told)]
    urgent = [_problem(p) for p in problems if _is_urgent(p)]
    return [heading("WRONG", "red"), *_flat(urgent), *_sick(found), *_flat([_problem(p) for p in others])]


def _is_urgent(problem: StackProblem) -> bool:
    """Whether it keeps everything else from being mended."""
    return problem.kind == "leader" or (problem.kind == "recovery" and problem.place == "stack")


def _flat(groups: Sequence[list[Line]]) -> list[Line]:
    return [line for group in groups for line in group]


def _sick(found: Sequence[Ailment]) -> list[Line]:
    if not found:
        return []
    names = max(len(a.service) for a in found) + 2
    words = max(len(str(a.status)) for a in found) + 2
    lines = []
    for ailment in found:
        bad = ailment.status not in (Status.DEGRADED, Status.HELD)
        mark = Piece("  ✘ " if bad else "  ! ", fg="red" if bad else "yellow")
        lead = (mark, Piece(ailment.service.ljust(names), bold=True), word(str(ailment.status), words))
        indent = Piece(" " * (4 + names + words))
        texts = _said_of(ailment)
        lines.append(Line(lead, texts[0]))
        lines += [Line((indent,), text, dim=True) for text in texts[1:]]
    return lines


def _said_of(ailment: Ailment) -> list[str]:
    """The reasons, where it comes from, and what is in danger; the first of them beside the name."""
    texts = [*ailment.reasons[:MOST_NAMES]]
    if len(ailment.reasons) > MOST_NAMES:
        texts.append(f"and {len(ailment.reasons) - MOST_NAMES} more instances")
    if ailment.treatment:
        texts.append(ailment.treatment)
    if ailment.suffers_from:
        texts.append(f"needs {_names(ailment.suffers_from)}: mend that first")
    elif ailment.endangers:
        texts.append(f"needed by {_names(ailment.endangers)}")
    return texts or [""]


def _names(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _problem(problem: StackProblem) -> list[Line]:
    if _is_urgent(problem):
        first, *rest = problem.message.split(". ")
        return [Line((Piece("  ✘ ", fg="red"),), first), *(Line((Piece("    "),), text, dim=True) for text in rest)]
    kind = {"agent": "node", "recovery": "service"}.get(problem.kind, problem.kind)
    lead = (Piece("  ! ", fg="yellow"), Piece(f"{kind} {problem.place}  ", bold=True))
    lines = [Line(lead, f"is not in force: {problem.message}" if problem.kind == "edge" else problem.message)]
    remedy = _remedy(problem)
    return [*lines, Line((Piece("    "),), remedy, dim=True)] if remedy else lines


def _remedy(problem: StackProblem) -> str:
    if problem.kind == "edge":
        service, _, dependency = problem.place.partition(" → ")
        return f"citadel deps remove {service} {dependency}"
    if problem.kind == "key":
        return f"it does no harm as it is; mend it, or: consul kv delete {problem.place}"
    return f"citadel agent --node {problem.place}, on that node" if problem.kind == "agent" else ""


# --- what is under way, what is held ----------------------------------------------------------------------------


def _under_way(look: Look) -> list[Line]:
    unfinished = [op for op in look.snapshot.operations if not op.ended]
    if not unfinished:
        return []
    lines = [heading("UNDER WAY", "cyan")]
    for operation in unfinished:
        lead = (Piece("  "), Piece(f"{operation.kind} ", bold=True), word(str(operation.state)), Piece("  "))
        lines.append(Line(lead, _progress(look, operation)))
        lines += [Line((Piece("    "),), text, dim=True) for text in waits_of(operation)]
    return lines


def _progress(look: Look, operation: Operation) -> str:
    targets = _names(operation.targets)
    asked = f"{targets}, asked for by {operation.requested_by or 'somebody'}"
    if operation.started_at is None:
        return f"{asked} {span(look.at - operation.requested_at)} ago   {operation.id}"
    done = sum(step.ended for step in operation.steps)
    return f"{asked}; {done} of {len(operation.steps)} steps in {span(look.at - operation.started_at)}   {operation.id}"


def waits_of(operation: Operation) -> list[str]:
    """What an operation waits for: another one, or what its steps say."""
    if operation.waits_for is not None:
        return [f"waits for operation {operation.waits_for}"]
    if operation.state is OperationState.PENDING:
        return ["waits for an orchestrator to take it"]
    open_steps = [step for step in operation.steps if not step.ended]
    open_steps.sort(key=lambda step: step.state is not StepState.RUNNING)
    texts = [
        f"{step.action} {step.instance}: {step.detail or step.state}"
        for step in open_steps
        if step.detail or step.state is StepState.RUNNING
    ]
    rest = len(texts) - MOST_NAMES
    return texts[:MOST_NAMES] + ([f"and {rest} more steps: citadel ops show {operation.id}"] if rest > 0 else [])


def _incidents(look: Look, found: Sequence[Ailment]) -> list[Line]:
    """What failed and does not any more: who was woken by it finds it here."""
    ill = {ailment.service for ailment in found}
    recent = [
        incident
        for incident in look.snapshot.incidents.values()
        if incident.service != STACK and incident.service not in ill and not _is_old(incident, look.at)
    ]
    if not recent:
        return []
    recent.sort(key=lambda incident: incident.opened_at, reverse=True)
    rows = [(Piece(i.service, bold=True), Piece(clock(i.opened_at), dim=True)) for i in recent[:MOST_INCIDENTS]]
    texts = [_course(look, incident) for incident in recent[:MOST_INCIDENTS]]
    rest = len(recent) - MOST_INCIDENTS
    more = [Line((Piece("  "),), f"and {rest} more: citadel events", dim=True)] if rest > 0 else []
    return [heading("INCIDENTS"), *columns(rows, texts), *more]


def _is_old(incident: Incident, now: float) -> bool:
    return incident.closed_at is not None and incident.closed_at < now - RECENT_SECONDS


def _course(look: Look, incident: Incident) -> str:
    """What failed, and what came of it."""
    if incident.over:
        end = f"{incident.outcome}, over at {clock(incident.closed_at)}"
    else:
        end = treatment_of(look.snapshot, incident.service, look.at)
    began = f"failed {incident.failure}" if incident.failure.startswith("on ") else incident.failure
    part = "; told with that of what it needs" if incident.part_of is not None else ""
    return f"{began}; {end}{part}"


def _held(look: Look) -> list[Line]:
    holds = [hold for hold in look.snapshot.holds if hold.until is None or hold.until > look.at]
    if not holds:
        return []
    lines = [heading("HELD (no automatic action)", "yellow")]
    for hold in holds:
        until = "until it is taken back" if hold.until is None else f"until {clock(hold.until)}"
        why = f": {hold.reason}" if hold.reason else ""
        place = hold.scope if hold.scope == "stack" else f"{hold.scope} {hold.name}"
        lines.append(Line((Piece(f"  {place}  ", bold=True),), f"by {hold.by or 'somebody'}{why}, {until}"))
    return lines


# --- everything else --------------------------------------------------------------------------------------------


def _services(look: Look) -> list[Line]:
    snapshot = look.snapshot
    statuses = service_statuses(snapshot, look.at)
    if not statuses or len(statuses) > MOST_SERVICES:
        return []
    rows = [
        (Piece(name), word(str(status)), Piece(_instances(snapshot, name, look.at)), Piece(_up(look, name)))
        for name, status in statuses.items()
    ]
    head = tuple(Piece(text, dim=True) for text in ("service", "status", "instances", "up for"))
    return [heading("SERVICES"), *columns([head, *rows])]


def _instances(snapshot: Snapshot, service: str, now: float) -> str:
    words = [instance_status(snapshot, instance, now) for instance in snapshot.instances(service)]
    nodes = snapshot.specs[service].nodes
    if len(nodes) == 1:
        return nodes[0]
    return f"{words.count(Status.HEALTHY)} of {len(words)} on {_names(nodes)}"


def _up(look: Look, service: str) -> str:
    seconds = uptime_seconds(look.snapshot, service, look.at)
    return "" if seconds is None else span(seconds)


def _control(look: Look, status: OrchestratorStatus) -> list[Line]:
    leader = look.leadership
    rows = []
    if leader is not None:
        since = f"since {clock(leader.since)} ({span(look.at - leader.since)})"
        rows.append(("leader", f"{leader.id}, epoch {leader.epoch}, {since}, API {leader.api}"))
    if status.standbys is None:
        rows.append(("standbys", "unknown: the token may not read services"))
    else:
        rows.append(("standbys", _names(status.standbys) or "none: nobody takes over if the leader goes"))
    rows.append(("agents", _names(status.agents) or "none"))
    last = next((op for op in reversed(look.snapshot.operations) if op.ended), None)
    if last is not None:
        rows.append(("last", last_line(last)))
    return [
        heading("CONTROL"),
        *columns([(Piece(name, dim=True),) for name, _ in rows], [text for _, text in rows]),
    ]


def last_line(operation: Operation) -> str:
    """How an operation ended."""
    took = ""
    if operation.started_at is not None and operation.ended_at is not None:
        took = f" in {span(operation.ended_at - operation.started_at)}"
    why = f": {operation.detail}" if operation.detail else ""
    what = f"{operation.kind} of {_names(operation.targets)}"
    return f"{what} {operation.state}{took} at {clock(operation.ended_at)}{why}"
