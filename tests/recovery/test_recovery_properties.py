"""Random stacks, random illnesses, leaders that die in the middle of a write: invariants hold, and all ends well."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from clinic import Behaviour, Clinic, crashing, incidents_change_as_the_table_allows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from invariants import guard
from scenarios import any_request, any_world
from world import World

from citadel_consul.core.actions import Action, SetDesired, WriteIncident
from citadel_consul.core.healing.policy import policy_of
from citadel_consul.core.incident import LEFT_ALONE, STACK, IncidentState
from citadel_consul.core.model import Check, CheckKind, RecoveryPolicy, ServiceSpec
from citadel_consul.core.operation import Kind
from citadel_consul.core.snapshot import CheckStatus
from citadel_consul.orchestrator.backoff import Backoffs


def i5_no_bout_has_more_attempts_than_its_policy_allows(world: World, action: Action) -> None:
    if isinstance(action, WriteIncident) and action.incident.service in world.specs:
        assert action.incident.attempts <= policy_of(world.snapshot(), action.incident.service).attempts


def i5_what_was_given_up_is_left_alone(world: World, action: Action) -> None:
    if not isinstance(action, SetDesired) or world.is_note(action) or action.desired.operation is None:
        return
    operation, service = world.heads[action.desired.operation], action.instance.service
    incident = world.incidents.get(service)
    if operation.automatic and operation.names(service) and incident is not None:
        assert incident.state not in LEFT_ALONE or operation.id in incident.operations


def i6_nothing_automatic_begins_under_a_hold(world: World, action: Action) -> None:
    if not isinstance(action, SetDesired) or world.is_note(action) or action.desired.operation is None:
        return
    held = any(hold.stands(world.now) and hold.covers(action.instance) for hold in world.holds)
    taken_back = not action.desired.run and action.instance not in world.processes
    if held and not taken_back:
        assert not world.heads[action.desired.operation].automatic, f"{action} under a hold"


def any_clinic(rng: Random) -> Clinic:
    """A guarded world in which recovery is on, with random policies."""
    model = any_world(rng, most_services=8, faults=0.0)
    specs = {name: _with_policy(rng, found) for name, found in model.specs.items()}
    defaults = replace(model.defaults, recovery_enabled=True, recovery_delay_seconds=rng.choice([0.0, 1.0, 20.0]))
    clinic = Clinic(specs, model.edges, behaviours=dict(model.behaviours), defaults=defaults)
    guard(clinic)
    clinic.backoffs = Backoffs().of
    clinic.listeners += [
        incidents_change_as_the_table_allows,
        i5_no_bout_has_more_attempts_than_its_policy_allows,
        i5_what_was_given_up_is_left_alone,
        i6_nothing_automatic_begins_under_a_hold,
    ]
    return clinic


def _with_policy(rng: Random, found: ServiceSpec) -> ServiceSpec:
    policy = RecoveryPolicy(
        attempts=rng.choice([None, 1, 2, 5]),
        reset_after_seconds=rng.choice([5.0, 50.0, 600.0]),
        restart_degraded=rng.random() < 0.3,
    )
    checks = (Check("alive", CheckKind.TCP, "127.0.0.1:1", interval_seconds=rng.choice([1.0, 5.0])),)
    return replace(found, recovery=policy, checks=() if found.oneshot else checks)


def upset(rng: Random, clinic: Clinic) -> None:
    """One thing that happens to a stack, and some time."""
    names = sorted(clinic.specs)
    services = rng.sample(names, rng.choice([1, 1, 1, min(2, len(names)), len(names)]))
    instances = [instance for name in services for instance in clinic.specs[name].instances]
    happening = rng.randrange(11)
    if happening == 0:
        clinic.kill_hard(*services)
    elif happening == 1:
        clinic.hang(*services, for_good=rng.random() < 0.3)
    elif happening == 2:
        clinic.cure(*names)
    elif happening == 3:
        clinic.claims = dict.fromkeys(instances, rng.choice([CheckStatus.CRITICAL, CheckStatus.MAINTENANCE]))
    elif happening == 4:
        clinic.warnings = set(instances)
    elif happening == 5:
        scope = rng.choice(["service", "node", "stack"])
        name = {"service": services[0], "node": rng.choice(["n1", "n2"]), "stack": ""}[scope]
        clinic.hold(scope, name, until=rng.choice([None, clinic.now + 10.0]))
    elif happening == 6:
        clinic.holds.clear()
    elif happening == 7:
        clinic.silent = set(rng.sample(["n1", "n2", "n3"], rng.randint(0, 2)))
    elif happening == 8:
        for instance in instances:
            clinic.behaviours[instance] = rng.choice([crashing(), crashing(3.0), Behaviour(cannot_start=True)])
    elif happening == 9:
        clinic.behaviours.clear()
        clinic.agents_answer = not clinic.agents_answer
    else:
        any_request(rng, clinic)
    clinic.lead(until=rng.randint(0, 6))  # and this leader is gone; the next one looks afresh
    clinic.pass_time(rng.choice([0.0, 0.5, 3.0, 15.0, 90.0]))


def heal_everything(clinic: Clinic) -> None:
    """End all that is wrong, and have a person repair what citadel has given up on."""
    clinic.cure(*clinic.specs)
    clinic.behaviours = {
        instance: Behaviour(exits_after=1.0, exits_well=True)
        for found in clinic.specs.values()
        for instance in found.instances
        if found.oneshot
    }
    clinic.claims.clear()
    clinic.warnings.clear()
    clinic.holds.clear()
    clinic.silent.clear()
    clinic.agents_answer = True
    clinic.pass_time(400.0)


def run(rng: Random, upsets: int) -> Clinic:
    clinic = any_clinic(rng)
    clinic.request(Kind.STARTUP)
    clinic.pass_time(5.0)
    for _ in range(upsets):
        upset(rng, clinic)
    return clinic


@pytest.mark.parametrize("seed", range(100))
def test_whatever_happens_the_invariants_hold(seed: int) -> None:
    run(Random(seed), 6)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(rng=st.randoms(use_true_random=False), upsets=st.integers(1, 8))
def test_the_invariants_hold_in_clinics_that_hypothesis_makes_up(rng: Random, upsets: int) -> None:
    run(rng, upsets)


@pytest.mark.parametrize("seed", range(60))
def test_when_everything_is_well_again_a_person_can_bring_everything_back(seed: int) -> None:
    clinic = run(Random(seed), 6)
    heal_everything(clinic)
    assert all(clinic.operation(operation_id).ended for operation_id in clinic.heads)
    clinic.request(Kind.STARTUP)
    clinic.pass_time(200.0)
    clinic.request(Kind.RECOVER)
    clinic.pass_time(200.0)
    up = {instance.service for instance in clinic.processes}
    assert up == {name for name, found in clinic.specs.items() if not found.oneshot}
    clinic.pass_time(1_500.0)
    still_open = {name: i for name, i in clinic.incidents.items() if not i.over}
    assert still_open == {}


@pytest.mark.parametrize("seed", range(60))
def test_giving_up_and_freezing_are_said_once_each_time(seed: int) -> None:
    clinic = run(Random(1_000 + seed), 8)
    given_up = sum(i.state is IncidentState.GAVE_UP for i in clinic.incidents.values())
    assert len(clinic.told("gave-up")) >= given_up
    opened = [event.message for event in clinic.events if event.kind in ("incident-opened", "quarantined")]
    closed = clinic.told("incident-closed")
    standing = sum(not i.over for name, i in clinic.incidents.items() if name != STACK)
    assert len(opened) >= len(closed)
    assert len(clinic.told("recovery-frozen")) - len(clinic.told("recovery-resumed")) in (0, 1)
    assert standing <= len(opened)
