"""The context window on random lives: large words, large results, sub-agents, crashes, providers that say "too long".

What the model is sent is valid for a strict provider, never over the window, never without the newest words of the
person; a fold of the log sends the same; what is due is decided at once and comes to an end (SEMANTICS §7, FAULTS 85).
"""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import commands as c
from app.core import events as e
from app.core.apply import fold
from app.core.codec import decode, to_json
from app.core.effects import Effect, ModelCall, ToolCall
from app.core.events import Call, NoteSaved, Path, Usage
from app.core.ledger import Ledger
from app.core.state import Words
from app.core.transcript import messages, tools
from tests.core.test_plan import check
from tests.core.test_properties import check_strict
from tests.core.world import DEEP, RULES, World

STEPS = 150
WINDOW = 3_000
RULES_HERE = replace(RULES, agents={"a": DEEP}, steps_max=200, context_tokens=WINDOW)
worlds = given(st.integers(min_value=0, max_value=2**32))
often = settings(max_examples=40, deadline=None)


class Wordy(World):
    """A world that talks a lot. Its provider takes so many characters (`takes`) and says so beyond that."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        super().__init__(chance, RULES_HERE)
        self.takes = chance.choice([10**9, 10**9, 6_000, 3_000])
        self.note(e.NoteSaved(note="n1", kind="decision", text="We chose SQL because the data is relational."))

    def note(self, event: NoteSaved) -> None:
        ledger = Ledger(self.state, c.Stamp(self.at, "owner", "f", 0.5))
        ledger.emit(event)
        self.log += ledger.events

    def long(self, most: int) -> str:
        line = f"{self.fresh()} wörter and more of them"
        return f"{line}\n" * (self.chance.choice([0, 1, most // 4, most]) // len(line) + 1)

    def _person(self) -> None:
        run, roll = self.state.run, self.chance.random()
        if roll < 0.4:
            self.do(c.Prompt(id=self.fresh(), text=self.long(16_000)))
        elif roll < 0.8:
            self.do(c.Hint(id=self.fresh(), text=self.long(16_000), interrupt=roll > 0.7))
        elif run is not None and run.status == "suspended":
            self.do(c.Resume(id=self.fresh(), steps=400))
        else:
            super()._person()

    def _report(self, effect: Effect) -> c.Internal:
        roll = self.chance.random()
        match effect:
            case ModelCall() if self.size(effect.path) > self.takes:
                return c.AttemptFailed(effect, "context", "too long", False)
            case ModelCall() if roll < 0.7:
                names = self.chance.choices(["safe", "never", "inner", "read_result", "missing"], k=2)
                arguments = {"prompt": self.long(6_000)} if self.chance.random() < 0.5 else {}
                calls = [Call(call="", tool=name, arguments=to_json(arguments)) for name in names]
                usage = Usage(input=self.size(effect.path) // self.chance.choice([2, 4, 5]), output=5)
                return c.Replied(effect, self.long(2_000), "", calls, "tool_calls", usage, asked=0)
            case ToolCall() if roll < 0.6:
                return c.ToolEnded(effect, 5, result=self.long(65_000)[:65_000], truncated=roll < 0.1)
        return super()._report(effect)

    def size(self, path: Path) -> int:
        """A request as the provider counts it, in characters."""
        told, offered = messages(self.state, path, self.rules), tools(self.state, path, self.rules)
        texts = sum(len(m.get("content", "")) for m in told)
        return texts + sum(len(to_json(m["tool_calls"])) for m in told if "tool_calls" in m) + len(to_json(offered))


def lived(seed: int) -> Wordy:
    world = Wordy(seed)
    for _ in range(STEPS):
        world.step()
    return world


@worlds
@often
def test_what_is_sent_is_valid_and_fits_the_window(seed: int) -> None:
    world = Wordy(seed)
    for _ in range(STEPS):
        before = len(world.log)
        world.step()
        for event in world.log[before:]:
            if not isinstance(event, e.StepStarted) or world.state.run is None:
                continue
            level = world.state.run.levels.get(event.path)
            if level is None or not level.asking or level.step != event.step:
                continue
            told = messages(world.state, event.path, world.rules)
            check_strict(told)
            assert told[-1]["role"] in ("user", "tool")
            assert [tool["function"]["name"] for tool in tools(world.state, event.path, world.rules)].count(
                "read_result"
            ) <= 1
            ratio = level.context.input / level.context.asked if level.context.asked >= 2_000 else 0.25
            assert event.asked * max(ratio, 0.125) <= WINDOW + 1, "over the window"
            newest = [item for item in level.history if isinstance(item, Words)][-1]
            assert any(newest.text[:40] in m.get("content", "") for m in told if m["role"] == "user")


@worlds
@often
def test_the_same_log_sends_the_same(seed: int) -> None:
    world = lived(seed)
    state = fold(decode(text) for text in world.texts())
    assert state == world.state
    for path in world.state.run.levels if world.state.run else ():
        assert messages(state, path, world.rules) == messages(world.state, path, world.rules)
        assert tools(state, path, world.rules) == tools(world.state, path, world.rules)


@worlds
@often
def test_what_is_due_is_decided_and_what_goes_on_is_wanted(seed: int) -> None:
    world = Wordy(seed)
    for _ in range(STEPS):
        world.step()
        world.do(c.Wake(), "")
        check(world)


@worlds
@often
def test_compaction_ends(seed: int) -> None:
    """Each takes something away or moves on: between two steps of a level there is a bounded number of them."""
    world = lived(seed)
    count: dict[Path, int] = {}
    for event in world.log:
        if isinstance(event, e.StepStarted | e.RunResumed):
            count[event.path] = 0
        elif isinstance(event, e.ContextCompacted):
            count[event.path] = count.get(event.path, 0) + 1
            assert count[event.path] < 40
            assert event.kind == "references" or event.from_ <= event.to
