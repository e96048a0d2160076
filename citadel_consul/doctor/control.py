"""Consul itself, the clocks, the token, and the stack as it lies in Consul."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Final

from citadel_consul.api.reading import leadership_of
from citadel_consul.consul.agent import AgentSelf
from citadel_consul.core.answers.problems import StackProblem, stack_problems
from citadel_consul.core.finding import Finding, Report, Severity
from citadel_consul.doctor.abilities import LOOK, abilities_of
from citadel_consul.doctor.site import Site
from citadel_consul.errors import PermissionDenied
from citadel_consul.store.state import StackState

OLDEST_CONSUL: Final = (1, 8)
SKEW_SECONDS: Final = 2.0
"""Clocks may differ by as much: what tells the time here does so in whole seconds."""

_ANSWER_SECONDS: Final = 2.0
_RELEASE: Final = re.compile(r"(\d+)\.(\d+)")
_ERROR: Final = Severity.ERROR


async def examine_consul(site: Site) -> Report:
    """The agent, its version, and whether its cluster can write."""
    findings = []
    if site.agent is not None and _is_too_old(site.agent):
        message = f"is {site.agent.version}, and citadel needs {'.'.join(map(str, OLDEST_CONSUL))} or newer"
        findings.append(Finding("consul-too-old", _ERROR, "Consul agent", message, "upgrade Consul"))
    if await site.client.status_leader() is None:
        message = "has no leader: nothing can be written, and nothing is started, stopped or recovered"
        findings.append(
            Finding("consul-no-leader", _ERROR, "Consul cluster", message, "restore the quorum of its servers")
        )
    who = "the token may not read the agent" if site.agent is None else _described(site.agent)
    return Report("consul", f"{site.client.address} answers: {who}", tuple(findings))


def _is_too_old(agent: AgentSelf) -> bool:
    found = _RELEASE.match(agent.version)
    return found is not None and (int(found[1]), int(found[2])) < OLDEST_CONSUL


def _described(agent: AgentSelf) -> str:
    kind = "server" if agent.server else "client"
    return f"Consul {agent.version}, {kind}, node {agent.node}, datacenter {agent.datacenter}"


async def examine_token(site: Site) -> Report:
    """Whether Consul knows the token, and whether it may see what there is to see."""
    who = "without a token one"
    try:
        token = await site.client.token_self()
    except PermissionDenied as error:
        if site.client.address.token is not None:
            remedy = "give a token of the policy operator or read-only (consul.d/acl)"
            return Report("token", findings=(Finding("token-refused", _ERROR, "token", str(error), remedy),))
    else:
        if token is None:
            return Report("token", "Consul's access control is off: whoever reaches it may do everything")
        who = f"accessor {token.accessor}"
    consul_node = site.agent.node if site.agent is not None else site.settings.node
    abilities = await abilities_of(site.client, site.stack, site.settings.node, consul_node)
    look = next(ability for ability in abilities if ability.name == LOOK)
    if look.allowed is None:
        return Report("token", unknown="this Consul cannot be asked for the rights of a token")
    remedy = (
        "Consul leaves out what may not be seen; the policies operator and read-only have this right (consul.d/acl)"
    )
    missing = [Finding("token-right-missing", _ERROR, "token", f"lacks {right}", remedy) for right in look.missing]
    may = ", ".join(ability.what for ability in abilities if ability.allowed) or "nothing"
    return Report("token", f"{who} may: {may}", tuple(missing))


async def examine_clock(site: Site, state: StackState | None) -> Report:
    """The clock of this machine beside those of the Consul agent and of the leader, as far as these tell."""
    others = {"the Consul agent": await _difference_to_consul(site)}
    leadership = leadership_of(state) if state is not None else None
    if leadership is not None:
        others[f"the leader ({leadership.id})"] = await _difference_to(leadership.api)
    known = {name: seconds for name, seconds in others.items() if seconds is not None}
    if not known:
        return Report("clock", unknown="nobody tells the time")
    findings = tuple(
        Finding(
            "clock-skew",
            _ERROR,
            "this machine",
            f"its clock is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} that of {name}",
            "synchronize the clocks (chrony, systemd-timesyncd): times of events, and the ends of holds, rest on them",
        )
        for name, seconds in known.items()
        if abs(seconds) > SKEW_SECONDS
    )
    return Report("clock", f"compared with {' and '.join(known)}", findings)


async def _difference_to_consul(site: Site) -> float | None:
    began = time.time()
    theirs = await site.client.agent_time()
    return None if theirs is None else _ahead(began, time.time(), theirs)


async def _difference_to(api: str) -> float | None:
    import httpx

    began = time.time()
    try:
        # Without verification: nothing is told to it, and it is believed nothing but the time.
        async with httpx.AsyncClient(verify=False, trust_env=False, timeout=_ANSWER_SECONDS) as http:  # noqa: S501
            said = (await http.head(f"http://{api}/livez")).headers.get("date")
        return _ahead(began, time.time(), parsedate_to_datetime(said).timestamp()) if said else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None  # it speaks TLS, or cannot be reached from here


def _ahead(began: float, ended: float, theirs: float) -> float:
    """How far our clock is ahead of one that said ``theirs`` (whole seconds) between our ``began`` and ``ended``."""
    if theirs + 1.0 < began:
        return began - (theirs + 1.0)
    return min(0.0, ended - theirs)


def examine_stack(state: StackState) -> Report:
    """Who leads, which nodes have no agent, and the keys and edges that are not in force."""
    snapshot = state.snapshot()
    if not snapshot.specs and leadership_of(state) is None:
        return Report("stack", f"there is no stack {snapshot.stack} in this Consul", tuple(_of_keys(state)))
    problems = stack_problems(snapshot, led=leadership_of(state) is not None)
    findings = [_finding(problem) for problem in problems if problem.kind in ("leader", "agent", "edge", "observer")]
    edges = len(snapshot.graph.edges)
    summary = f"{snapshot.stack}: {len(snapshot.specs)} services, {edges} edges, {len(snapshot.agents)} node agents"
    return Report("stack", summary, (*findings, *_of_keys(state)))


def _of_keys(state: StackState) -> Iterator[Finding]:
    for fault in state.faults():
        remedy = "mend it, or delete it: it does no harm as it is, and what it should say is not followed"
        command = f"consul kv delete {fault.key}"
        yield Finding("key-unreadable", _ERROR, fault.key, fault.message, remedy, command)


def _finding(problem: StackProblem) -> Finding:
    if problem.kind == "leader":
        return Finding(
            "no-leader", _ERROR, problem.place, problem.message, "start an orchestrator", "citadel orchestrator"
        )
    if problem.kind == "agent":
        command = f"citadel agent --node {problem.place}"
        return Finding("agent-missing", _ERROR, problem.place, problem.message, "start it on that node", command)
    if problem.kind == "edge":
        service, _, dependency = problem.place.partition(" → ")
        command = f"citadel deps remove {service} {dependency}"
        return Finding("edge-refused", _ERROR, problem.place, problem.message, "mend or remove the edge", command)
    return Finding(
        "observer-at-fault", Severity.WARNING, problem.place, problem.message, "mend what looks, not the service"
    )
