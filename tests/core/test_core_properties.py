"""Properties of decide, held against random stacks, random services and random crashes (see ``invariants``)."""

from __future__ import annotations

from random import Random

import pytest
from scenarios import any_request, any_world
from world import Accidents, World

PATIENCE_SECONDS = 600.0
"""No operation of a scenario may take longer, with all that it has to wait for and all its rolling back."""


def live_through(rng: Random, *, crash_share: float) -> World:
    """Some requests, cancels and deaths in a random world, until all operations have ended."""
    world = any_world(rng)
    accidents = Accidents(Random(rng.getrandbits(32)), crash_share=crash_share)
    for _ in range(rng.randint(1, 4)):
        operation_id = any_request(rng, world)
        for _ in range(rng.randint(0, 12)):
            accidents.turn(world)
        if rng.random() < 0.2:
            world.cancel(operation_id)
        if world.processes and rng.random() < 0.3:
            world.kill(rng.choice(sorted(world.processes)))
    accidents.settle(world, patience_seconds=PATIENCE_SECONDS)
    return world


@pytest.mark.parametrize("seed", range(300))
def test_the_invariants_hold_and_every_operation_ends_whatever_crashes(seed: int) -> None:
    live_through(Random(seed), crash_share=0.3)
