"""Chunks become one reply, however a provider bends the format."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.agent.assembly import Assembly, ReplyTooLarge
from app.agent.model import Finished, ReasoningDelta, TextDelta
from app.core.codec import clean
from app.core.events import Call, Json, Usage


def assemble(*chunks: Json) -> tuple[str, str, Finished]:
    """The text, the reasoning and the end."""
    assembly = Assembly()
    deltas = [delta for chunk in chunks for delta in assembly.take(chunk)]
    text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    reasoning = "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta))
    return text, reasoning, assembly.finished()


def delta(finish: str | None = None, **fields: Any) -> Json:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def piece(index: int | None, id: str | None = None, name: str | None = None, arguments: Any = None) -> Json:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    entry: Json = {"type": "function", "function": function}
    entry.update({key: value for key, value in (("index", index), ("id", id)) if value is not None})
    return delta(tool_calls=[entry])


def test_text_reasoning_and_refusal() -> None:
    text, reasoning, end = assemble(
        delta(role="assistant", content=""),
        delta(reasoning_content="think"),
        delta(reasoning="ing", reasoning_content=None),
        delta(content="Hel"),
        delta(content="lo"),
        delta(refusal=" no"),
        delta(content=[{"type": "text", "text": "!"}, {"type": "image"}]),
        delta("stop"),
        {
            "choices": [],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
        },
    )
    assert (text, reasoning) == ("Hello no!", "thinking")
    assert end == Finished("stop", [], Usage(input=9, output=3, cached=4))


CALLS: list[tuple[str, list[Json], list[tuple[str, str, str]]]] = [
    (
        "mixed parallel calls with gaps, the higher index first",
        [piece(7, "b", "two", '{"x"'), piece(2, "a", "one", "{"), piece(7, arguments=":1}"), piece(2, arguments="}")],
        [("a", "one", "{}"), ("b", "two", '{"x":1}')],
    ),
    ("no ids", [piece(0, None, "one", "{}"), piece(1, None, "two", "{}")], [("", "one", "{}"), ("", "two", "{}")]),
    (
        "twice the same id",
        [piece(0, "a", "one", "{}"), piece(1, "a", "two", "{}")],
        [("a", "one", "{}"), ("a", "two", "{}")],
    ),
    (
        "arguments before the name",
        [piece(0, "a", None, '{"x":'), piece(0, None, "one", "1}")],
        [("a", "one", '{"x":1}')],
    ),
    ("id at the end", [piece(0, None, "one", "{"), piece(0, "a", None, "}")], [("a", "one", "{}")]),
    ("everything repeated", [piece(0, "a", "one", "{"), piece(0, "a", "one", "}")], [("a", "one", "{}")]),
    ("a name in pieces", [piece(0, "a", "get_"), piece(0, None, "time", "{}")], [("a", "get_time", "{}")]),
    (
        "one index for all",
        [piece(0, "a", "one", "{}"), piece(0, "b", "two", "{}")],
        [("a", "one", "{}"), ("b", "two", "{}")],
    ),
    (
        "one index for all, in pieces",
        [piece(0, "a", "one", "{"), piece(0, None, None, "}"), piece(0, "b", "two", "{"), piece(0, None, None, "}")],
        [("a", "one", "{}"), ("b", "two", "{}")],
    ),
    (
        "no index",
        [
            piece(None, "a", "one", "{"),
            piece(None, None, None, "}"),
            piece(None, "b", "two", "{"),
            piece(None, "b", None, "}"),
        ],
        [("a", "one", "{}"), ("b", "two", "{}")],
    ),
    (
        "no index and no id",
        [piece(None, None, "one", "{}"), piece(None, None, "two", "{}")],
        [("", "one", "{}"), ("", "two", "{}")],
    ),
    ("arguments as an object", [piece(0, "a", "one", {"x": 1})], [("a", "one", '{"x": 1}')]),
    ("no arguments", [piece(0, "a", "one")], [("a", "one", "")]),
    (
        "noise",
        [piece(3), delta(tool_calls=[None, 5]), delta(tool_calls="x"), piece(0, "a", "one", "{}")],
        [("a", "one", "{}")],
    ),
    ("before there were tools", [delta(function_call={"name": "one", "arguments": "{}"})], [("", "one", "{}")]),
]


@pytest.mark.parametrize(("chunks", "calls"), [case[1:] for case in CALLS], ids=[case[0] for case in CALLS])
def test_tool_calls(chunks: list[Json], calls: list[tuple[str, str, str]]) -> None:
    *_, end = assemble(*chunks, delta("tool_calls"))
    assert end.calls == [Call(call=call, tool=tool, arguments=arguments) for call, tool, arguments in calls]


def whole(**fields: Any) -> Json:
    return {"choices": [{"index": 0, "message": fields, "finish_reason": "stop"}]}


def test_whole_messages() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "one", "arguments": "{}"}}
    text, reasoning, end = assemble(whole(content="Hello", reasoning="hm", tool_calls=[call, {**call, "id": "b"}]))
    assert (text, reasoning, [call.call for call in end.calls]) == ("Hello", "hm", ["a", "b"])
    text, reasoning, end = assemble(
        delta(content="Hel", reasoning="hm"),
        piece(0, "a", "one", "{"),
        whole(content="Hello", reasoning="hm", tool_calls=[call]),
    )
    assert (text, reasoning, len(end.calls)) == ("Hello", "hm", 1), "a repetition adds only what is new"


def test_half_characters_wait_for_their_other_half() -> None:
    text, reasoning, end = assemble(
        delta(content="a\ud83d"),
        delta(reasoning="\ud83d"),
        delta(content="\ude00b"),
        delta(reasoning="x"),
        delta(content="\ude00"),
        piece(0, "a", "one", '"\ud83d'),
        piece(0, arguments='\ude00"'),
    )
    assert (text, reasoning, end.calls[0].arguments) == ("a😀b\ufffd", "\ufffdx", '"😀"')


def test_other_choices_and_unknown_usage_are_passed_over() -> None:
    text, _, end = assemble(
        {"choices": [{"index": 1, "delta": {"content": "second"}}, {"delta": {"content": "first"}}, None]},
        {"choices": None, "usage": {"prompt_tokens": "many"}},
        {"object": "ping"},
    )
    assert (text, end.usage) == ("first", None)


def test_long_arguments_show_signs_of_life() -> None:
    assembly = Assembly()
    assert list(assembly.take(piece(0, "a", "one", "{"))) == [TextDelta("")]
    assert list(assembly.take({"choices": []})) == []


def test_a_reply_without_end_is_refused() -> None:
    assembly = Assembly()
    with pytest.raises(ReplyTooLarge):
        for _ in range(11):
            list(assembly.take(delta(content="x" * 1_000_000)))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
expected_calls = st.lists(
    st.tuples(st.text("abc123", min_size=1), st.text("xyz_", min_size=1, max_size=8), texts), max_size=4
)


@settings(deadline=None)
@given(texts, expected_calls, st.data())
def test_any_chunking_gives_the_same_reply(text: str, calls: list[tuple[str, str, str]], data: st.DataObject) -> None:
    def cut(whole: str) -> list[str]:
        at = [0, *sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4))), len(whole)]
        return [whole[a:b] for a, b in itertools.pairwise(at)]

    queues = [[delta(content=part) for part in cut(text)]]
    for index, (id_, name, arguments) in enumerate(calls):
        queues.append([piece(index, id_, name, ""), *(piece(index, None, None, part) for part in cut(arguments))])
    chunks = []
    while queues := [queue for queue in queues if queue]:
        chunks.append(data.draw(st.sampled_from(queues)).pop(0))
    said, _, end = assemble(*chunks, delta("tool_calls"))
    assert said == clean(text)
    assert end.calls == [Call(call=clean(i), tool=clean(n), arguments=clean(a)) for i, n, a in calls]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "message", "tool_calls", "function", "index", "id", "name", "arguments"]
            )
            | st.sampled_from(["content", "usage", "finish_reason", "reasoning", "prompt_tokens", "text"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["choices", "usage"]), json_values), max_size=4))
def test_no_chunk_breaks_it(chunks: list[Json]) -> None:
    text, reasoning, end = assemble(*chunks)
    for part in (text, reasoning, *(call.arguments for call in end.calls)):
        part.encode()
