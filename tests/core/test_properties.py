"""What must hold of every log that `decide` can write, checked on random worlds.

fold(prefix) + events = fold(whole); a refusal changes nothing; every call has one result and every hint one end; after
its end a run is silent (P7); an accepted id is accepted for ever with its first seq (P3); what the model is sent is
valid for a strict provider at every step; the plan of a running state is never empty (P5).
"""

from __future__ import annotations

import copy
import random
import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import commands as c
from app.core import events as e
from app.core.apply import fold
from app.core.codec import decode, encode
from app.core.decide import decide
from app.core.effects import ArchiveFlush
from app.core.errors import Rejected
from app.core.notes import put_before_the_model
from app.core.plan import plan
from app.core.transcript import messages
from tests.core.world import DEEP, RULES, World

STEPS = 120
DEEP_RULES = replace(RULES, agents={"a": DEEP}, steps_max=30)
worlds = given(st.integers(min_value=0, max_value=2**32))
often = settings(max_examples=150, deadline=None)


def played(seed: int, steps: int = STEPS) -> World:
    world = World(random.Random(seed), DEEP_RULES if seed % 2 else RULES)
    for _ in range(steps):
        world.step()
    return world


@worlds
@often
def test_the_fold_of_the_log_is_the_state(seed: int) -> None:
    world = played(seed)
    texts = world.texts()
    whole = fold(decode(text) for text in texts)
    assert whole == world.state
    for cut in {0, len(texts) // 3, len(texts) - 1}:
        prefix = fold(decode(text) for text in texts[:cut])
        assert fold((decode(text) for text in texts[cut:]), prefix) == whole


@worlds
@often
def test_seqs_are_contiguous_and_texts_are_stable(seed: int) -> None:
    world = played(seed)
    assert [event.seq for event in world.log] == list(range(1, len(world.log) + 1))
    for event in world.log:
        assert encode(decode(encode(event))) == encode(event)
        assert "\n" not in encode(event)


@worlds
@often
def test_a_refusal_changes_nothing(seed: int) -> None:
    world = played(seed, 40)
    refused: list[c.FromClient] = [
        c.Prompt(id="n1", text="  "),
        c.Hint(id="n2", text="x" * 70_000),
        c.Withdraw(id="n3", target="nobody"),
        c.Approve(id="n4", run="none", call=["x"], digest="y"),
        c.Approve(id="n5", run="none", call=[], digest="y"),
        c.Settle(id="n6", run="none", call=["x"], outcome="done"),
        c.Cancel(id="n7", run="none"),
        c.Rename(id="n8", title="t" * 201),
        c.Resume(id="n9", run="none"),
        c.Note(id="n10", kind="decision", text=" "),
        c.Note(id="n11", kind="decision", text="x" * 4_001),
    ]
    before = copy.deepcopy(world.state)
    for command in refused:
        with pytest.raises(Rejected):
            decide(world.state, command, c.Stamp(world.at, "owner", "f", 0.5), RULES)
        assert world.state == before


@worlds
@often
def test_an_accepted_id_is_accepted_for_ever(seed: int) -> None:
    """P3: the same answer after any time, and after a restart (a fold of the log)."""
    world = played(seed)
    restarted = fold(decode(text) for text in world.texts())
    for id, seq in world.accepted.items():
        again = decide(restarted, c.Prompt(id=id, text="again"), c.Stamp(world.at, "owner", "f", 0.5), RULES)
        assert (again.seq, again.duplicate, again.events) == (seq, True, [])
        assert world.log[seq - 1].cause == id


@worlds
@often
def test_after_its_end_a_run_is_silent(seed: int) -> None:
    """P7, and exactly one terminal event."""
    ended: set[str] = set()
    for event in played(seed).log:
        if isinstance(event, e.HintDropped | e.PromptDropped):
            continue  # of the same append, before the terminal event: checked below
        assert event.run not in ended, f"{event} after the end of its run"
        if isinstance(event, e.RunCompleted | e.RunFailed | e.RunCancelled):
            assert event.run is not None
            ended.add(event.run)


@worlds
@often
def test_every_call_has_one_result_and_every_hint_one_end(seed: int) -> None:
    world = played(seed)
    results = Counter((e_.run, e_.path, e_.call) for e_ in world.log if isinstance(e_, e.ToolReturned | e.ToolFailed))
    asked = {(r.run, r.path, call.call) for r in world.log if isinstance(r, e.ModelReplied) for call in r.calls}
    assert set(results) <= asked and not [call for call, count in results.items() if count > 1]
    open_calls = (
        {(world.state.run.run, path, call.call) for path, call in world.state.run.calls} if world.state.run else set()
    )
    assert asked - set(results) == open_calls
    ends = Counter(
        event.message
        for event in world.log
        if isinstance(event, e.HintApplied | e.HintCarried | e.HintWithdrawn | e.HintDropped)
    )
    waiting = {words.message for words in world.state.queue if words.kind == "hint"}
    for event in world.log:
        if isinstance(event, e.HintGiven):
            assert ends[event.message] == (0 if event.message in waiting else 1)


@worlds
@often
def test_the_model_is_sent_what_a_strict_provider_takes(seed: int) -> None:
    world = World(random.Random(seed), DEEP_RULES)
    for _ in range(STEPS):
        world.step()
        run = world.state.run
        for path, level in run.levels.items() if run is not None else ():
            if level.asking:
                check_strict(messages(world.state, path, DEEP_RULES))


@worlds
@often
def test_what_is_asked_does_not_change_while_it_is_asked(seed: int) -> None:
    """003-17: whatever is saved or said meanwhile, an open attempt's request is the one that it began with."""
    world = World(random.Random(seed), DEEP_RULES)
    began: dict[tuple[str, e.Path, int, int], list[e.Json]] = {}
    for _ in range(STEPS):
        world.step()
        run = world.state.run
        for path, level in run.levels.items() if run is not None else ():
            if run is not None and level.asking:
                told = messages(world.state, path, DEEP_RULES)
                assert began.setdefault((run.run, path, level.step, level.attempt), told) == told


@worlds
@often
def test_notes_are_saved_once_and_put_back_whole(seed: int) -> None:
    """§8: one note per id, in order, and each that is there is before the model."""
    world = played(seed)
    saved = [event for event in world.log if isinstance(event, e.NoteSaved)]
    newest = {event.note: event for event in saved}
    assert world.state.notes == list(newest.values())
    assert all(event.run is None or event.note.startswith(f"{event.run}/") for event in saved)
    told = put_before_the_model(world.state.notes)
    assert told.count("</note>") == len(newest) + bool(newest)  # the heading names it once


def check_strict(told: list[e.Json]) -> None:
    """Every assistant message with calls is followed at once by one answer per call; nothing is empty or repeats."""
    calls = [call for message in told for call in message.get("tool_calls", [])]
    assert len({call["id"] for call in calls}) == len(calls)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", call["function"]["name"]) for call in calls)
    expected: list[str] = []
    for message in told:
        if expected:
            assert message["role"] == "tool" and message["tool_call_id"] == expected.pop(0)
            assert message["content"]
            continue
        assert message["role"] in ("system", "user", "assistant")
        assert message.get("content") or message.get("tool_calls")
        expected = [call["id"] for call in message.get("tool_calls", [])]
    assert not expected


@worlds
@often
def test_what_runs_is_wanted_or_waits_for_a_time(seed: int) -> None:
    """P5: a run that is going on has work in flight, or a time at which it goes on."""
    world = played(seed)
    run = world.state.run
    if run is not None and run.status == "running":
        wanted = plan(world.state, world.rules)
        assert [w for w in wanted.effects if not isinstance(w, ArchiveFlush)] or wanted.wake_at is not None
    if run is not None and run.status == "waiting":
        assert all(call.waits or call.agent for _, call in run.calls)


@worlds
@often
def test_nothing_that_may_not_be_repeated_starts_twice(seed: int) -> None:
    """P6: one `tool.started` per call, unless a person said: run it again."""
    world = played(seed)
    starts = Counter((event.run, event.path, event.call) for event in world.log if isinstance(event, e.ToolStarted))
    reruns = Counter(
        (event.run, event.path, event.call)
        for event in world.log
        if isinstance(event, e.DoubtSettled) and event.outcome == "rerun"
    )
    assert all(count <= 1 + reruns[call] for call, count in starts.items())
