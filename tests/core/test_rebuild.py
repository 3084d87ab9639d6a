"""003-17: from the log alone, without any agents, exactly the requests that were sent can be built again."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from app.core import commands as c
from app.core import events as e
from app.core.apply import fold
from app.core.codec import decode, encode
from app.core.errors import Corrupt, Rejected
from app.core.events import Call
from app.core.rebuild import Rebuilding, Rebuilt
from app.core.request import digest_of, plain
from app.core.state import Request
from tests.core.stage import Stage
from tests.core.test_properties import DEEP_RULES, STEPS, often, worlds
from tests.core.world import DEEP, FUNCTIONS, INNER, FakeAgent, FakeTool, World, named

OTHER = FakeAgent(instructions="Be long.", model="m2", tools=named(*FUNCTIONS[:3], INNER))
"""What becomes of an agent when its author changes it between two starts; and without a tool that was asked for."""


def rebuilt(texts: list[str]) -> list[Rebuilt]:
    rebuilding = Rebuilding()
    return [found for text in texts if (found := rebuilding.take(text)) is not None]


def life(seed: int) -> tuple[World, dict[int, Request]]:
    """A world whose agent changes now and then, and what the runner would have sent for each `step.started`."""
    world = World(random.Random(seed), DEEP_RULES)
    sent: dict[int, Request] = {}
    for _ in range(STEPS):
        if world.chance.random() < 0.03:
            agents: Any = world.chance.choice([{"a": OTHER}, {"a": DEEP}, {}])
            world.rules = replace(world.rules, agents=agents, model=world.chance.choice(["m", "m3"]))
        before = len(world.log)
        world.step()
        run = world.state.run
        for event in world.log[before:]:
            level = run.levels.get(event.path) if run else None
            if not isinstance(event, e.StepStarted) or level is None or level.request is None:
                continue
            if (level.step, level.attempt) == (event.step, event.attempt):
                sent[event.seq] = level.request
    return world, sent


@worlds
@often
def test_003_17_every_request_of_a_random_life_is_rebuilt_from_its_log(seed: int) -> None:
    """003-17: sub-agents, approvals, crashes, hints, agents that change or go; a fresh fold, no agents."""
    world, sent = life(seed)
    found = rebuilt(world.texts())
    assert [one.event.seq for one in found] == [one.seq for one in world.log if isinstance(one, e.StepStarted)]
    for one in found:
        assert one.request is not None and digest_of(one.request) == one.event.request
        if one.event.seq in sent:
            assert one.request == sent[one.event.seq], "what is sent is what the log says"


@worlds
@often
def test_an_open_attempt_has_its_request_and_nothing_else_keeps_one(seed: int) -> None:
    """What the runner sends is there as long as it may be asked for, and no longer."""
    world, _ = life(seed)
    for level in world.state.run.levels.values() if world.state.run else ():
        assert (level.request is not None) == level.asking
        assert level.request is None or level.request.messages
    assert fold(map(decode, world.texts())) == world.state


def told(stage: Stage, *tools: str | Call) -> None:
    stage.prompt()
    stage.reply("Looking.", *tools)


def test_an_agent_is_described_once_and_again_when_it_changes() -> None:
    stage = Stage()
    told(stage, "safe")
    first, second = stage.all(e.StepStarted)[0], stage.begin() and stage.end() and stage.last(e.StepStarted)
    assert first.described is not None and (first.described.agent, first.described.model) == ("a", None)
    assert [schema["function"]["name"] for schema in first.described.tools][:2] == ["never", "safe"]
    assert isinstance(second, e.StepStarted) and second.described is None
    stage.crash()
    assert stage.last(e.StepStarted).described is None, "nor by the next process"
    stage.reply("done")
    stage.change(agents={"a": OTHER})
    stage.prompt("p2")
    again = stage.last(e.StepStarted).described
    assert again is not None and (again.instructions, again.model) == ("Be long.", "m2")
    assert all(one.equal for one in rebuilt(stage.texts()))


def test_each_place_of_an_agent_is_described_by_itself() -> None:
    """Equal names at two levels are two agents."""
    stage = Stage(agent=DEEP)
    told(stage, Call(call="k1", tool="inner", arguments='{"prompt": "do"}'))
    stage.path = ("k1",)
    stage.reply("", Call(call="k2", tool="inner", arguments='{"prompt": "do"}'))
    described = [(one.path, one.described and len(one.described.tools)) for one in stage.all(e.StepStarted)]
    assert described == [((), 7), (("k1",), 7), (("k1", "k2"), 6)]
    assert set(stage.state.described) == {("a",), ("a", "inner"), ("a", "inner", "inner")}
    assert [one.equal for one in rebuilt(stage.texts())] == [True] * 3


def test_words_that_come_while_the_model_is_asked_are_not_in_what_it_was_asked() -> None:
    """The request is what it was at its boundary, whatever the same pass of the wheel takes in after it."""
    stage = Stage()
    stage.prompt()
    asked = stage.run.top.request
    stage.hint()
    assert stage.run.top.request is asked
    assert [one.equal for one in rebuilt(stage.texts())] == [True]


CHANGES = [
    ("Looking.", "Looting."),
    ('"result":"fine"', '"result":"mine"'),
    ('"text":"go"', '"text":"no"'),
    ("Be brief.", "Be grief."),
    ('"arguments":"{}"', '"arguments":"{ }"'),
    ('"model":"m"', '"model":"n"'),
]


@pytest.mark.parametrize(("was", "becomes"), CHANGES)
def test_a_log_that_was_changed_does_not_match(was: str, becomes: str) -> None:
    """003-17: whatever went into a request and reads otherwise now is found."""
    stage = Stage()
    told(stage, "safe")
    stage.begin()
    stage.end()
    texts = stage.texts()
    assert any(was in text for text in texts)
    assert not all(one.equal for one in rebuilt([text.replace(was, becomes, 1) for text in texts]))


@pytest.mark.parametrize("missing", ["run.started", "prompt.given", "model.replied", "tool.started"])
def test_a_log_with_a_hole_is_damaged_or_does_not_match(missing: str) -> None:
    stage = Stage()
    told(stage, "safe")
    stage.begin()
    stage.end()
    texts = [text for text in stage.texts() if f'"type":"{missing}"' not in text]
    if missing == "tool.started":  # says that the call began, and no model is told that
        assert all(one.equal for one in rebuilt(texts))
        return
    with pytest.raises(Corrupt):
        rebuilt(texts)


def test_a_step_of_an_older_version_has_no_digest_and_is_said_to_have_none() -> None:
    stage = Stage()
    told(stage, "safe")
    events = [msgspec.structs.replace(one, request=None, described=None) if isinstance(one, e.StepStarted) else one
              for one in stage.log]  # fmt: skip
    old = [encode(event) for event in events]
    assert [(one.request, one.equal) for one in rebuilt(old)] == [(None, True)]
    stage.state = fold(map(decode, old))
    stage.log = events
    stage.begin()
    stage.end()
    assert [one.request is not None for one in rebuilt(stage.texts())] == [False, True], "described by the next step"
    assert all(one.equal for one in rebuilt(stage.texts()))


def test_an_agent_that_is_gone_is_described_as_nothing() -> None:
    stage = Stage()
    told(stage, "safe")
    stage.begin()
    stage.change(agents={})
    stage.end()
    last = rebuilt(stage.texts())[-1]
    assert last.equal and last.request is not None and last.request.tools == []
    assert last.request.messages[0]["role"] == "user"


def test_the_digest_is_of_the_json_with_sorted_keys_and_no_spaces() -> None:
    """Whoever has the request can hash it without this code."""
    request = Request("m", [{"role": "user", "content": 'wört \u2028 \x7f "/\\ \U0001f600'}], [FakeTool("t").schema])
    text = json.dumps(plain(request), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert digest_of(request) == hashlib.sha256(text.encode()).hexdigest()


def test_a_refused_command_begins_no_attempt() -> None:
    stage = Stage()
    stage.prompt()
    request = stage.run.top.request
    with pytest.raises(Rejected):
        stage.do(c.Approve(id="x", run="none", call=["x"], digest="y"))
    assert stage.run.top.request is request
