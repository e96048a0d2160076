"""Bugs to plant: one-line changes in ordering, fencing, recovery and resume, each of which has to be caught.

``old`` occurs exactly once in its file, which a test of the quick suite checks, so that this list cannot rot unnoticed.
``suites`` are where the bug is looked for, in this order, until one of them fails.
"""

from __future__ import annotations

from dataclasses import dataclass

SIMULATION = "simulation"
CORE = "tests/core"
RECOVERY = "tests/recovery"
LEASE = "tests/consul_client/test_consul_lease.py"
AGENT = "tests/agent"
LEADER = "tests/orchestrator"
DECISIONS = "tests/draining/test_drain_decisions.py tests/draining/test_rolling_decisions.py"
DRAINS = "tests/draining/test_drainer.py tests/draining/test_runner_drains.py"
HANDBACK = "tests/handback/test_handback_decisions.py"


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug. ``file`` is below ``citadel_consul/``."""

    name: str
    file: str
    old: str
    new: str
    suites: tuple[str, ...] = (SIMULATION, CORE, RECOVERY)


BUGS = (
    # --- ordering ---------------------------------------------------------------------------------------------------
    Bug(
        "a start does not wait for its dependencies",
        "core/rules.py",
        "        and not snapshot.edge_met(edge)\n    )",
        "        and False\n    )",
    ),
    Bug(
        "soft edges give no order",
        "core/rules.py",
        "if (edge.needed_to_start or any(not step.ended for step in steps.get(edge.dependency, ())))",
        "if edge.needed_to_start",
        (CORE, SIMULATION),
    ),
    Bug(
        "a stop does not wait for its dependents",
        "core/stopping.py",
        "    if above:\n        return explain",
        "    if False:\n        return explain",
    ),
    Bug(
        "a stop takes the ground from under a dependent that stays",
        "core/stopping.py",
        "    if stuck is not None:",
        "    if False:",
        (CORE, SIMULATION),
    ),
    Bug(
        "an instance may go although another one of it is needed",
        "core/rules.py",
        "self.spare < snapshot.meets(",
        "self.spare < 0 * snapshot.meets(",
    ),
    Bug(
        "what a turn has ordered is not seen by the rest of it",
        "core/turn.py",
        "        if isinstance(overlay, _Overlay):\n            overlay[instance] = desired",
        "        if isinstance(overlay, _Overlay):\n            pass",
        (CORE, SIMULATION),
    ),
    Bug(
        "a start that waits for nothing is given up as hopeless",
        "core/rules.py",
        "    return hopeful < max(1, snapshot.needed(edge))",
        "    return hopeful <= max(1, snapshot.needed(edge))",
        (CORE, SIMULATION),
    ),
    Bug(
        "a restart starts a dependent before its dependency is stopped",
        "core/worklist.py",
        "if edge.needed_to_run and any(not step.ended for step in self.stops.get(edge.dependency, ())):",
        "if False and any(not step.ended for step in self.stops.get(edge.dependency, ())):",
        (CORE, SIMULATION),
    ),
    Bug(
        "what is known of a neighbour is kept after it changed",
        "core/worklist.py",
        "            self._unmet.pop(edge.service, None)",
        "            pass",
        (CORE, SIMULATION),
    ),
    Bug(
        "operations on the same services run at once",
        "core/decide.py",
        "next((other for other, scope in taken if scope & wanted), None)",
        "next((other for other, scope in taken if False), None)",
    ),
    # --- fencing ----------------------------------------------------------------------------------------------------
    Bug(
        "the fence is not the first operation of a leader's write",
        "orchestrator/fence.py",
        "[check_session(self.leader_key, self.session), *operations]",
        "list(operations)",
    ),
    Bug(
        "an agent follows orders of any epoch",
        "agent/orders.py",
        "        if wanted.epoch < self._reporter.document.epoch:",
        "        if wanted.epoch < 0:",
        (AGENT, SIMULATION),
    ),
    Bug(
        "an agent follows orders while its lock may be another's",
        "agent/orders.py",
        "        self._waiting = not self._lease.sure",
        "        self._waiting = False",
        (AGENT, SIMULATION, LEASE),
    ),
    Bug(
        "a lock counts as sure for ever",
        "consul/lease.py",
        "        return self.held and not self._doubted and self._clock() < self.safe_until",
        "        return self.held",
        (LEASE, SIMULATION),
    ),
    Bug(
        "the epoch of a leader is not written into its orders",
        "orchestrator/writer.py",
        "        changes.desired[node] = NodeDesired(epoch=self.epoch, instances=instances)",
        "        changes.desired[node] = NodeDesired(epoch=before.epoch, instances=instances)",
        (LEADER, SIMULATION),
    ),
    Bug(
        "a lease is not given back at the end",
        "consul/lease.py",
        "                await self._client.transact([unlock(self.key, self.value, session)])",
        "                await asyncio.sleep(0)",
        (LEASE, SIMULATION),
    ),
    # --- resume -----------------------------------------------------------------------------------------------------
    Bug(
        "a new leader does not take what was ordered as begun",
        "core/progress.py",
        "    _adopt(turn, operation, work)\n",
        "",
    ),
    Bug(
        "the steps of unfinished operations are not read",
        "store/reading.py",
        "        state.steps[operation_id] = await read_steps(client, state.keys, operation_id)",
        "        pass",
        ("tests/store/test_reading.py",),
    ),
    Bug(
        "generations begin again at one",
        "core/turn.py",
        "        return 1 + max(",
        "        return 1 + 0 * max(",
    ),
    Bug(
        "an order that no agent took is never taken back",
        "core/progress.py",
        "    ours = desired is not None and desired.run and desired.operation == operation.id",
        "    ours = False",
    ),
    Bug(
        "an agent that comes back does not adopt what runs",
        "agent/runner.py",
        "        if isinstance(found, Running):",
        "        if isinstance(found, Running) and False:",
    ),
    Bug(
        "an agent starts again what has the same generation",
        "agent/runner.py",
        "        if wanted.generation <= self.observed.generation:",
        "        if wanted.generation < self.observed.generation:",
    ),
    Bug(
        "a report that was not written is forgotten",
        "agent/reporter.py",
        "            except ConsulUnavailable:\n                self._hurry()",
        "            except ConsulUnavailable:\n                self._dirty.clear()",
        (AGENT, SIMULATION),
    ),
    Bug(
        "a decision that was not written is believed",
        "orchestrator/loop.py",
        "            await self._look_again(state)",
        "            await asyncio.sleep(RETRY_SECONDS)",
    ),
    Bug(
        "the time-out of an operation is not kept",
        "core/progress.py",
        "    deadline = (operation.started_at or turn.now) + timeout_of(turn, operation)",
        "    deadline = turn.now + timeout_of(turn, operation)",
    ),
    # --- recovery ---------------------------------------------------------------------------------------------------
    Bug(
        "attempts are not counted",
        "core/healing/treatment.py",
        "            attempts=incident.attempts + 1,",
        "            attempts=incident.attempts,",
        (RECOVERY, SIMULATION),
    ),
    Bug(
        "a budget that is used up does not end recovery",
        "core/healing/treatment.py",
        "        if backoff.exhausted:",
        "        if False:",
        (RECOVERY, SIMULATION),
    ),
    Bug(
        "a consequence is recovered like a cause",
        "core/healing/treatment.py",
        "    if ward.causes.is_explained(service):\n        _wait(",
        "    if False:\n        _wait(",
        (RECOVERY, SIMULATION),
    ),
    Bug(
        "a hold does not stop an automatic operation",
        "core/progress.py",
        "    if not operation.automatic or step.action is StepAction.NOTIFY:",
        "    if True:",
        (CORE, RECOVERY, SIMULATION),
    ),
    Bug(
        "recovery begins although much fails at once",
        "core/healing/heal.py",
        "    if not frozen:\n        while",
        "    if True:\n        while",
        (RECOVERY, SIMULATION),
    ),
    Bug(
        "what flaps is recovered for ever",
        "core/healing/heal.py",
        "        quarantine(ward)",
        "        pass",
        (RECOVERY, SIMULATION),
    ),
    Bug(
        "what is wanted is not started when its dependency is back",
        "core/healing/heal.py",
        "        _revive(ward)",
        "        pass",
        (SIMULATION, RECOVERY),
    ),
    Bug(
        "a death is not told to the leader",
        "agent/runner.py",
        '        self._note("completed" if completed else "exited")',
        "        return",
        (AGENT, SIMULATION),
    ),
    # --- holds ------------------------------------------------------------------------------------------------------
    Bug(
        "recovery does not ask for holds",
        "core/healing/ward.py",
        "        return hold is not None",
        "        return False",
        (RECOVERY, SIMULATION),
    ),
    Bug(
        "a hold on a node does not cover what runs there",
        "core/snapshot.py",
        'names = {"service": instance.service, "node": instance.node}',
        'names = {"service": instance.service}',
        (CORE, RECOVERY, SIMULATION),
    ),
    Bug(
        "a hold stands after it has run out",
        "core/snapshot.py",
        "        return self.until is None or now < self.until",
        "        return True",
        (CORE, RECOVERY, SIMULATION),
    ),
    # --- budgets ----------------------------------------------------------------------------------------------------
    Bug(
        "an incident that opens anew has a whole budget",
        "core/healing/treatment.py",
        "if last.attempts and last.healthy_since is not None and now <",
        "if False and last.healthy_since is not None and now <",
        (RECOVERY, SIMULATION),
    ),
    Bug(
        "what a person repaired stays given up",
        "core/healing/ward.py",
        "        return last if last is not None and last > after else None",
        "        return None",
        (RECOVERY, SIMULATION),
    ),
    Bug(
        "a long healthy time does not make the budget whole",
        "core/healing/treatment.py",
        "    if ward.turn.now >= incident.healthy_since + policy.reset_after_seconds:",
        "    if False:",
        (RECOVERY, SIMULATION),
    ),
    Bug(
        "what the settings say of attempts comes before the spec",
        "core/healing/policy.py",
        "attempts=defaults.recovery_attempts if own.attempts is None else own.attempts",
        "attempts=defaults.recovery_attempts",
        (RECOVERY, SIMULATION),
    ),
    # --- quarantine -------------------------------------------------------------------------------------------------
    Bug(
        "what is quarantined is released at the next look",
        "core/healing/quarantine.py",
        "    if _wake_when_quiet(ward, incident.service):\n        return",
        "    if False:\n        return",
        (RECOVERY, SIMULATION),
    ),
    Bug(
        "a penalty does not decay",
        "core/healing/flapping.py",
        "0.5 ** (max(0.0, now - at) / half_life_seconds)",
        "1.0 ** (max(0.0, now - at) / half_life_seconds)",
        (RECOVERY, SIMULATION),
    ),
    # --- draining and rolling ---------------------------------------------------------------------------------------
    Bug(
        "a roll takes the next instance before the last one serves",
        "core/rolling.py",
        "    if progress.in_hand is not None:",
        "    if progress.in_hand is not None and False:",
        (DECISIONS, SIMULATION),
    ),
    Bug(
        "a roll takes what a dependent needs",
        "core/rolling.py",
        "        if not snapshot.meets(instance, edge.condition) or snapshot.spare(edge) >= 1:",
        "        if True:",
        (DECISIONS, SIMULATION),
    ),
    Bug(
        "a roll goes on after a failure",
        "core/rolling.py",
        "    if progress.failed is not None:",
        "    if progress.failed is not None and False:",
        (DECISIONS, SIMULATION),
    ),
    Bug(
        "what is recovered drains first",
        "core/draining.py",
        "    if not operation.options.graceful or operation.kind is Kind.RECOVER:",
        "    if not operation.options.graceful:",
        (DECISIONS, SIMULATION),
    ),
    Bug(
        "an instance is stopped while something is in flight",
        "agent/draining.py",
        "            if count != 0 or not leaving.done():",
        "            if not leaving.done():",
        (DRAINS,),
    ),
    Bug(
        "an instance is stopped before its clients have heard of it",
        "agent/draining.py",
        "        await asyncio.sleep(max(SETTLE_SECONDS, ttl))",
        "        await asyncio.sleep(0)",
        (DRAINS,),
    ),
    Bug(
        "a drain has no end",
        "agent/runner.py",
        "            async with asyncio.timeout(max(0.0, seconds)):",
        "            async with asyncio.timeout(None):",
        (DRAINS, SIMULATION),
    ),
    Bug(
        "a drain that is taken back goes on",
        "agent/runner.py",
        "        return newest is not None and not newest.run and bool(newest.drain_seconds)",
        "        return True",
        (DRAINS, SIMULATION),
    ),
    # --- handing back and forgetting --------------------------------------------------------------------------------
    Bug(
        "what is handed back is let go of under the hands of an operation",
        "core/handback.py",
        "        if hold.name not in busy and hold.stands(turn.now):",
        "        if hold.stands(turn.now):",
        (HANDBACK,),
    ),
    Bug(
        "what is to be let go of is stopped",
        "core/handback.py",
        "reason=reason, released=True)",
        "reason=reason)",
        (HANDBACK, SIMULATION),
    ),
    Bug(
        "what is handed back counts as let go of while its agent has it in hand",
        "core/handback.py",
        "    return ordered and (observed is None or instance.node not in snapshot.agents)",
        "    return ordered",
        (HANDBACK,),
    ),
    Bug(
        "a service that still runs is forgotten with its spec",
        "orchestrator/housekeeping.py",
        "(observed.alive or observed.generation < desired.generation)",
        "(False)",
        (LEADER,),
    ),
    Bug(
        "an agent lets go of what runs when it is dismissed",
        "agent/runner.py",
        "        return not self.observed.alive and not ordered and self._exit is None",
        "        return True",
        (AGENT,),
    ),
)
