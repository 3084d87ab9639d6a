"""Every deliberate fault of mutations.py is caught: by the world that is known for it, or by one of a few others.

A change of the product moves what happens in a world; then the first WORLDS seeds are searched before this fails.
"""

from __future__ import annotations

import random
import re

import pytest

from app.core.commands import Activate, Wake
from app.core.effects import ModelCall, Summary, ToolCall
from app.core.errors import Rejected
from app.core.plan import plan
from tests.core import world as core
from tests.core.test_context_lives import Wordy
from tests.core.test_properties import DEEP_RULES
from tests.simulation.mutations import MUTATIONS, PURE, Mutation
from tests.simulation.test_simulation import play

WORLDS = 200


def caught(mutation: Mutation, seed: int) -> str | None:
    """What the checks say of a world with this fault; None if they notice nothing."""
    with pytest.MonkeyPatch.context() as patch:
        mutation.switch(patch)
        try:
            if mutation.seed == PURE:
                play_pure(seed)
            else:
                play(seed, mutation.twists)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


def play_pure(seed: int) -> None:
    """A world of the pure floor: what was in flight when a new owner took over reports in vain."""
    world = Wordy(seed) if seed % 3 == 2 else core.World(random.Random(seed), DEEP_RULES)
    for number in range(120):
        world.step()
        if number % 10:
            continue
        wanted = plan(world.state, world.rules).effects
        older = [effect for effect in wanted if isinstance(effect, ModelCall | Summary | ToolCall)]
        world.do(Activate(world.state.epoch + 1), "")
        world.do(Wake(), "")  # what is due by itself comes now, and not with a report
        for effect in older:
            try:
                believed = [event for event in world.do(world._report(effect), "").events if event.run is not None]
            except Rejected:  # a note of a call that is over
                continue
            assert not believed, f"a report of an older epoch: {effect}: {believed}"


def search(mutation: Mutation) -> tuple[int, str] | None:
    """The first world in which the right check notices this fault, and what it says."""
    for seed in [max(mutation.seed, 0), *range(WORLDS)]:
        said = caught(mutation, seed)
        if said is not None and re.search(mutation.says, said, re.DOTALL):
            return seed, said
    return None


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_fault_is_caught(mutation: Mutation) -> None:
    found = search(mutation)
    assert found is not None, f"{WORLDS} worlds did not notice: {mutation.fault}"
    print(f"world {found[0]}: {found[1][:200]}")


def test_without_a_fault_these_worlds_are_fine() -> None:
    """What catches a fault is the fault, not the world."""
    for mutation in MUTATIONS:
        if mutation.seed == PURE:
            for seed in range(20):
                play_pure(seed)
        else:
            play(mutation.seed, mutation.twists)
