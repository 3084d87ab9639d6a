"""A snapshot is the state that the fold gives, and folding on from it gives what folding the whole log gives.

What it forgets is told no more: requests, summaries and excerpts are the same without it. FAULTS 29.
"""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import events as e
from app.core.apply import fold
from app.core.codec import decode
from app.core.context import tellable
from app.core.errors import Corrupt
from app.core.rebuild import Rebuilding
from app.core.snapshot import PART_ITEMS, forget, joined, parts
from app.core.state import Decided, State, Words
from app.core.transcript import messages
from tests.core.test_context_lives import Wordy
from tests.core.test_properties import often, played
from tests.core.world import World

worlds = given(st.integers(min_value=0, max_value=2**32))
seldom = settings(max_examples=20, deadline=None)


def kept(state: State) -> State:
    """As whoever reads a snapshot of a state has it."""
    again: State | None = None
    for part in parts(state):
        again = joined(again, part)
    assert again is not None
    return again


def folded(texts: list[str], state: State | None = None) -> State:
    return fold((decode(text) for text in texts), state)


def lives(seed: int) -> World:
    """A talkative world, in which much is summarised."""
    world = Wordy(seed)
    for _ in range(150):
        world.step()
    return world


@worlds
@often
def test_a_snapshot_is_the_state(seed: int) -> None:
    """FAULTS 29: of any part of any log, open attempts, calls, doubts and levels of sub-agents included."""
    texts = played(seed).texts()
    whole = folded(texts)
    for cut in {0, len(texts) // 3, len(texts) // 2, len(texts) - 1}:
        before = folded(texts[:cut])
        untouched = copy.deepcopy(before)
        again = kept(before)
        assert again == before == untouched
        assert folded(texts[cut:], again) == whole


@worlds
@seldom
def test_what_a_snapshot_forgets_is_told_no_more(seed: int) -> None:
    """FAULTS 29: from a state that has forgotten, the same log gives the same requests, to the letter."""
    world = lives(seed)
    texts = world.texts()
    forgetful, whole = Rebuilding(), Rebuilding()
    for place, text in enumerate(texts):
        if place % 50 == seed % 50:
            forget(forgetful.state)
            forgetful.state = kept(forgetful.state)
        assert forgetful.take(text) == whole.take(text)
    run = whole.state.run
    for path in run.levels if run is not None else ():
        assert messages(forgetful.state, path, world.rules) == messages(whole.state, path, world.rules)
    forget(forgetful.state)
    forget(whole.state)
    assert forgetful.state == whole.state, "forgetting now and then is forgetting at the end"


@worlds
@seldom
def test_what_follows_is_decided_the_same(seed: int) -> None:
    """FAULTS 29: whoever goes on from a snapshot that has forgotten writes the events that the others write."""
    world, other = lives(seed), lives(seed)
    forget(other.state)
    other.state = kept(other.state)
    for _ in range(60):
        for each in (world, other):
            each.step()
    assert world.texts() == other.texts()


def test_it_forgets_what_a_summary_stands_for() -> None:
    """FAULTS 29: memory is bounded by what people said and a window: of what is older only what the index lists."""
    summarised = [world.state for world in map(lives, range(20)) if world.state.context.through]
    assert summarised
    for state in summarised:
        before = len(state.history)
        words = [item for item in state.history if isinstance(item, Words)]
        forget(state)
        assert state.context.forgotten == state.context.through > 0
        assert [item for item in state.history if isinstance(item, Words)] == words
        older = [item for item in state.history if not isinstance(item, Words) and item.seq <= state.context.through]
        assert sum(isinstance(item, e.ToolReturned) for item in older) <= 8 and len(older) <= 16
        assert len(state.history) < before
        assert tellable(state.history, state.context) == state.history


def test_the_top_level_has_the_history_of_the_conversation() -> None:
    """One list, not two that say the same today."""
    again = kept(next(state for state in (played(seed).state for seed in range(100)) if state.run is not None))
    assert again.run is not None
    assert again.run.top.history is again.history and again.run.top.context is again.context


def test_an_open_attempt_has_no_request() -> None:
    """What it asks is its owner's to know, and whoever reads a snapshot is another: activation ends the attempt."""
    world = next(world for world in map(played, range(100)) if world.state.run and world.state.run.top.asking)
    assert world.state.run is not None and world.state.run.top.request is not None
    again = kept(world.state)
    assert again.run is not None and again.run.top.asking and again.run.top.request is None
    assert again == world.state


def test_a_large_state_comes_in_small_parts() -> None:
    """FAULTS 29: nothing holds the process up: no part has more than so many entries."""
    state = folded(played(3).texts())
    state.receipts = {f"id-{number}": number for number in range(PART_ITEMS * 5 + 1)}
    found = list(parts(state))
    assert len(found) >= 7 and kept(state) == state
    assert all(len(joined(None, part).receipts) <= PART_ITEMS for part in found)


@pytest.mark.parametrize("part", [b"", b"nonsense", b"\x78\x9c", next(parts(State()))[:-3], next(parts(State()))[3:]])
def test_what_is_damaged_is_noticed(part: bytes) -> None:
    """FAULTS 29: never a state that is half of one."""
    with pytest.raises(Corrupt):
        joined(None, part)


def test_every_changed_bit_is_noticed() -> None:
    """FAULTS 29: a state that was changed on its way is none."""
    [part] = list(parts(State(title="A title")))
    for place in range(8 * len(part)):
        changed = bytearray(part)
        changed[place // 8] ^= 1 << place % 8
        try:
            assert joined(None, bytes(changed)) == State(title="A title"), "an unused bit, if any"
        except Corrupt:
            continue


def test_an_integer_that_no_snapshot_can_hold() -> None:
    """The log is JSON and holds it; the snapshot says so, and whoever wanted one does without."""
    state = State(decisions={("r", (), "k"): Decided("approved", "ann", 1, {"n": 2**70})})
    with pytest.raises(OverflowError):
        list(parts(state))
