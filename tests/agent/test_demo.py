"""The demo: its model plays the whole story with its real tools, and answers any history."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.agent.demo import PLACES, demo_agent
from app.agent.demo_script import ABOUT, CALLS_MAX, TOOLS, play
from app.agent.demo_story import CLOSING, clock, is_order, people, wishes
from app.agent.model import Delta, Finished, ReasoningDelta, Request, TextDelta
from app.agent.model_demo import DemoModel
from app.agent.tools import Tool, ToolError
from app.core.events import Call, Json

from .calls import Watched

AGENT = demo_agent(0)
SCHEMAS = [made.schema for made in AGENT.tools.values()]
Answer = Callable[[Call, Json], str | None]


def function(name: str) -> Tool:
    """A tool of the demo."""
    tool = AGENT.tools[name]
    assert isinstance(tool, Tool)
    return tool


async def hear(messages: list[Json], tools: list[Json] | None = None, pace: float = 0) -> list[Delta]:
    request = Request("any", messages, SCHEMAS if tools is None else tools)
    return [delta async for delta in DemoModel(pace).stream(request)]


async def said(messages: list[Json], tools: list[Json] | None = None) -> str:
    return "".join(delta.text for delta in await hear(messages, tools) if isinstance(delta, TextDelta))


class Dinner:
    """Plays a whole run with the real tools. `answer` may stand in for a result; `hints` come after their step."""

    def __init__(self, prompt: str, hints: dict[int, str] | None = None, answer: Answer = lambda call, _: None) -> None:
        self.messages: list[Json] = [{"role": "user", "content": prompt}]
        self.hints = hints or {}
        self.answer = answer
        self.calls: list[tuple[str, Json]] = []
        self.texts: list[str] = []
        self.reports = 0

    def called(self, tool: str, argument: str = "place") -> list[Any]:
        return [arguments.get(argument) for name, arguments in self.calls if name == tool]

    async def play(self) -> Dinner:
        for step in range(CALLS_MAX + 2):
            deltas = await hear(self.messages)
            text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
            end = deltas[-1]
            assert isinstance(end, Finished) and end.usage is not None and end.usage.estimated
            self.texts.append(text)
            if not end.calls:
                assert end.finish == "stop" and CLOSING in text
                self.messages.append({"role": "assistant", "content": text})
                return self
            assert end.finish == "tool_calls"
            used = [
                {"id": c.call, "type": "function", "function": {"name": c.tool, "arguments": c.arguments}}
                for c in end.calls
            ]
            self.messages.append({"role": "assistant", "content": text, "tool_calls": used})
            for call in end.calls:
                await self._answer(call)
            if step in self.hints:
                self.messages.append({"role": "user", "content": self.hints[step]})
        raise AssertionError("the demo does not come to an end")

    async def _answer(self, call: Call) -> None:
        arguments = json.loads(call.arguments)
        assert AGENT.tools[call.tool].check(arguments) is None
        self.calls.append((call.tool, arguments))
        content = self.answer(call, arguments)
        if content is None:
            watched = Watched()
            content = await function(call.tool).run(arguments, watched.context)
            self.reports += len(watched.reports)
        self.messages.append({"role": "tool", "tool_call_id": call.call, "content": content})


def failing(tool: str, *results: str) -> Answer:
    """Gives these results to the first calls of a tool, the real ones afterwards."""
    left = list(results)
    return lambda call, _: left.pop(0) if call.tool == tool and left else None


async def test_the_whole_story() -> None:
    dinner = await Dinner("Can you order dinner for four at 8 pm?").play()
    assert [name for name, _ in dinner.calls] == ["find_places", *["evaluate"] * 3, "reserve"]
    assert dinner.calls[-1][1] == {"place": "Kissaten Moon", "people": 4, "time": "20:00", "wishes": ""}
    assert dinner.texts[0] == "Finding places…"
    assert dinner.reports >= 10, "tools report progress"
    last = dinner.texts[-1]
    for word in ("Kissaten Moon", "20:00", "HF-", "OPENAI_API_KEY", "OPENAI_BASE_URL", "HOLDFAST_MODEL", CLOSING):
        assert word in last
    ids = [call["id"] for message in dinner.messages for call in message.get("tool_calls", [])]
    assert len(ids) == len(set(ids))


async def test_a_second_order_in_the_same_conversation_is_a_new_story() -> None:
    first = await Dinner("dinner please").play()
    second = Dinner("another table for 3, vegan")
    second.messages = [*first.messages, {"role": "user", "content": "order a table for 3 people, vegan"}]
    await second.play()
    assert second.called("reserve") == ["Green Anchor"] and second.called("reserve", "people") == [3]
    for words, ordered in (("something cheap instead", True), ("thanks, that was nice", False)):
        text = await said([*first.messages, {"role": "user", "content": words}])
        assert (text != ABOUT) is ordered


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    ("hint", "kitchens"),
    [
        ("vegetarian please", {"vegetarian", "italian", "indian", "lebanese"}),
        ("rather cheap", {"indian", "lebanese", "mexican"}),
    ],
)
async def test_hints_change_the_choice_and_are_acknowledged(step: int, hint: str, kitchens: set[str]) -> None:
    dinner = await Dinner("order dinner", {step: hint}).play()
    assert f"Noted: {hint.split()[-1 if 'cheap' in hint else 0]}" in dinner.texts[step + 1]
    chosen = next(place for place in PLACES if place.name == dinner.called("reserve")[0])
    assert chosen.kitchen in kitchens
    assert hint in dinner.called("reserve", "wishes")[0]


async def test_any_other_wish_is_acknowledged_and_passed_on() -> None:
    dinner = await Dinner("order dinner", {1: "we bring a dog"}).play()
    assert "“we bring a dog”" in dinner.texts[2]
    assert dinner.called("reserve", "wishes") == ["we bring a dog"]


async def test_a_hint_after_the_reservation_is_not_ignored() -> None:
    dinner = await Dinner("order dinner", {2: "vegan!"}).play()
    assert "“vegan!”" in dinner.texts[-1] and len(dinner.called("reserve")) == 1


async def test_a_denial_leads_to_the_next_best_place_and_two_end_it() -> None:
    once = await Dinner(
        "order dinner", answer=failing("reserve", "Error (denied): The person denied this call.")
    ).play()
    assert len(set(once.called("reserve"))) == 2
    assert "You would rather not go to **Kissaten Moon**" in once.texts[-2] and "HF-" in once.texts[-1]
    reason = "Error (denied): The person denied this call: too expensive"
    twice = await Dinner("order dinner", answer=failing("reserve", reason, "Error (denied): Nobody approved.")).play()
    assert twice.called("reserve")[1] == "Saffron Yard", "the reason counts as a wish"
    assert "I stop here: nothing was reserved" in twice.texts[-1]


async def test_edited_arguments_are_told_back() -> None:
    def edited(call: Call, arguments: Json) -> str | None:
        if call.tool != "reserve":
            return None
        done = {"reserved": True, **arguments, "people": 6, "place": "Chez Odile", "confirmation": "HF-0001"}
        return f'(A person changed the arguments to {{"people": 6, "confirmation": ""}}.)\n{json.dumps(done)}'

    dinner = await Dinner("order dinner", answer=edited).play()
    assert "As you changed it (place: Chez Odile; people: 6)" in dinner.texts[-1]


@pytest.mark.parametrize(
    "result",
    [
        "Error (in_doubt): The process ended while it ran. It may or may not have happened.",
        "It may or may not have happened",
    ],
)
async def test_a_doubt_is_said_and_never_tried_again(result: str) -> None:
    dinner = await Dinner("order dinner", answer=failing("reserve", result)).play()
    assert len(dinner.called("reserve")) == 1
    assert "I can't know" in dinner.texts[-1]


@pytest.mark.parametrize("tool", sorted(TOOLS))
@pytest.mark.parametrize(
    "result", ["Error (error): ValueError: broken", "Error (timeout): stopped", "Error (skipped): ", ""]
)
async def test_failing_tools_never_stop_it_from_ending(tool: str, result: str) -> None:
    once = await Dinner("order dinner", answer=failing(tool, result)).play()
    assert "HF-" in once.texts[-1]
    ever = await Dinner("order dinner", answer=failing(tool, *[result] * 99)).play()
    assert ("HF-" in ever.texts[-1]) is (tool == "evaluate" and "skipped" not in result)


async def test_everything_else_is_answered_honestly() -> None:
    for words in ("hello", "What is 2 + 2?", "I'm fine, thanks", "write me a table of primes"):
        text = await said([{"role": "user", "content": words}])
        assert text == ABOUT
        assert "demo model" in text and "\n- " in text and "```" in text
    assert await said([{"role": "user", "content": "order dinner"}], tools=[]) == ABOUT, "without its tools it cannot"
    assert await said([]) == ABOUT


async def test_stopped_and_then_something_else() -> None:
    dinner = await Dinner("order dinner").play()
    upto = next(i for i, message in enumerate(dinner.messages) if message["role"] == "tool")
    stopped = [
        *dinner.messages[:upto],
        {**dinner.messages[upto], "content": "Error (cancelled): The tool was stopped."},
    ]
    assert await said([*stopped, {"role": "user", "content": "hello"}]) == ABOUT
    assert (await said([*stopped, {"role": "user", "content": "vegan, please"}])).startswith(
        "Noted: vegan. Finding places"
    )
    cut = [dinner.messages[0], {"role": "assistant", "content": "Finding pl"}, {"role": "user", "content": "cheap"}]
    assert (await said(cut)).startswith("Noted: cheap. Finding places")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
fragments = st.sampled_from(
    [
        "order dinner",
        "vegan",
        "for 99 people at 25:00 pm",
        CLOSING,
        "Error (denied): no",
        '{"confirmation": 1}',
        "[{",
        "\ud800",
        '[{"name": {"a": []}, "suits": 3, "kitchen": null}]',
        '[{"name": "\\ud800", "suits": [["vegan"]]}]',
        '{"rating": 1e999}',
    ]
)
contents = (
    st.none() | fragments | st.text(max_size=30) | st.lists(st.fixed_dictionaries({"text": fragments}), max_size=2)
)
functions = st.fixed_dictionaries(
    {"name": st.sampled_from([*TOOLS, "other"]), "arguments": fragments | json_values.map(json.dumps)}
)
histories = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "system"]), "content": contents},
        optional={
            "tool_call_id": st.sampled_from(["a", "b"]),
            "tool_calls": st.lists(
                st.fixed_dictionaries({"id": st.sampled_from(["a", "b"]), "function": functions}), max_size=3
            )
            | json_values,
        },
    ),
    max_size=12,
)


@settings(deadline=None)
@given(histories)
def test_any_history_gets_the_same_valid_reply_every_time(messages: list[Json]) -> None:
    reply = play(messages, TOOLS)
    assert reply == play(messages, TOOLS)
    assert reply.text or reply.calls
    for call in reply.calls:
        assert AGENT.tools[call.tool].check(json.loads(call.arguments)) is None
        call.arguments.encode()
    deltas = asyncio.run(hear(messages))
    assert isinstance(deltas[-1], Finished) and not any(isinstance(delta, Finished) for delta in deltas[:-1])


async def test_pace() -> None:
    messages: list[Json] = [{"role": "user", "content": "order dinner"}]
    began = time.perf_counter()
    fast = await hear(messages)
    at_once = time.perf_counter() - began
    slow = await hear(messages, pace=0.05)
    assert slow == fast, "pace changes nothing but the time"
    assert time.perf_counter() - began - at_once > 0.1 and at_once < 1
    reasoning = "".join(delta.text for delta in fast if isinstance(delta, ReasoningDelta))
    assert reasoning.startswith("The person wants dinner.") and len(fast) > 20, "many small pieces"


async def test_the_tools_refuse_nonsense() -> None:
    for tool, arguments in (
        ("evaluate", {"place": "Nowhere"}),
        ("reserve", {"place": "Nowhere", "people": 2, "time": "19:30"}),
    ):
        with pytest.raises(ToolError, match="no place called 'Nowhere'"):
            await function(tool).run(arguments, Watched().context)
    assert AGENT.tools["reserve"].check({"place": "x", "people": 0, "time": "25:00"}) is not None
    assert AGENT.tools["reserve"].needs_approval({}) and AGENT.tools["reserve"].rerun == "never"
    assert AGENT.tools["find_places"].rerun == AGENT.tools["evaluate"].rerun == "safe"


def test_words() -> None:
    assert is_order("Can you order dinner?") and is_order("please reserve us a table") and not is_order("order a taxi")
    assert people("for two") == 2 and people("we are 5, for 19:30") == 5 and people("for 99") is None
    assert clock("at 8 pm") == "20:00" and clock("12 am or 19:45") == "19:45" and clock("12 am") == "00:00"
    assert wishes("no fish, but cheap and not vegan") == {"fish": False, "cheap": True, "vegan": False}
