"""The plan and what follows by itself agree, in every state that chance can reach: nothing turns, nothing hangs.

P5 and P8 on random worlds in which processes drain and come back, places run out, and sub-agents wait, retry and are
parked at once. After every step the state is asked what is due now; what it says then must be the whole truth.
"""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import commands as c
from app.core.apply import fold
from app.core.codec import decode
from app.core.effects import ArchiveFlush
from app.core.plan import plan
from tests.core.world import DEEP, RULES, FakeAgent, World

STEPS = 150


class Weather:
    """A random world whose process drains, dies and comes back, and whose places run out."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        pick = self.chance.choice
        agent = pick([DEEP, FakeAgent(), FakeAgent(end_on_denial=True)])
        rules = replace(RULES, agents={"a": agent}, steps_max=pick([3, 30]), turns=pick([None, None, 2]))
        rules = replace(rules, slice_ms=pick([None, 100]), tokens_max=pick([None, None, 100]))
        rules = replace(rules, retry_ms=pick([1_000, 20_000]), seconds_max=pick([None, None, 9]))
        self.world = World(self.chance, rules)

    def step(self) -> None:
        world, roll = self.world, self.chance.random()
        if roll < 0.03:
            world.rules = replace(world.rules, draining=True)
        elif world.rules.draining and roll < 0.1:
            world.state = fold(decode(text) for text in world.texts())
            world.rules = replace(world.rules, draining=False)
            world.do(c.Activate(world.state.epoch + 1), "")
        elif roll < 0.06:
            world.rules = replace(world.rules, admit=not world.rules.admit)
        world.step()
        world.do(c.Wake(), "")


@given(st.integers(min_value=0, max_value=2**32))
@settings(max_examples=80, deadline=None)
def test_what_is_due_has_happened_and_what_goes_on_is_wanted(seed: int) -> None:
    weather = Weather(seed)
    for _ in range(STEPS):
        weather.step()
        check(weather.world)


def check(world: World) -> None:
    state, run, draining = world.state, world.state.run, world.rules.draining
    before = len(world.log)
    world.do(c.Wake(), "")
    assert len(world.log) == before, "what is due at one time is decided at once"
    planned = plan(state, world.rules)
    wanted = [effect for effect in planned.effects if not isinstance(effect, ArchiveFlush)]
    assert len(set(planned.effects)) == len(planned.effects)
    assert planned.wake_at is None or planned.wake_at > world.at, "a time in the past makes the wheel turn for ever"
    if run is None:
        assert draining or not (state.queue or state.carried), "P5: words that wait start the next run"
        assert not wanted and state.unfinished == bool(state.queue or state.carried)
        return
    match run.status:
        case "running":
            assert draining or wanted or planned.wake_at is not None, (
                "P5: a run that goes on has something to go on with"
            )
            assert state.unfinished, "whoever starts this process again is told"
        case "waiting":
            assert any(call.waits for _, call in run.calls) and not wanted, "it waits for a person, and only for one"
            assert all(level.open_calls for level in run.levels.values()), "§5: a level with all its results goes on"
        case _:
            assert run.status == "suspended" and not wanted
