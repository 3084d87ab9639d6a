"""The stub and the judge of histories, tested themselves: a judge that never finds anything proves nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionMessageParam

from .history import Broken, Differences, Follower, Json, Record, differences, faults, records_in, surviving
from .strict import complaints
from .stub import Story, Stub, refuse, say

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(30)]


@pytest_asyncio.fixture(loop_scope="module")
async def client(stub: Stub) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=stub.url, api_key="k", max_retries=0, timeout=5) as raw:
        yield raw


async def ask(client: openai.AsyncOpenAI, story: Story) -> Any:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": story.says("Hello")}]
    options: Any = {"include_usage": True}
    return await client.chat.completions.create(model="m", messages=messages, stream=True, stream_options=options)


async def test_text_reasoning_and_usage_arrive(client: openai.AsyncOpenAI, story: Story) -> None:
    story.then(say("Hel", "lo", reasoning="hm"))
    chunks = [chunk async for chunk in await ask(client, story)]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello"
    assert chunks[-1].usage.total_tokens == 18
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[0].choices[0].delta.reasoning_content == "hm"


async def test_parallel_calls_in_pieces_arrive(client: openai.AsyncOpenAI, story: Story) -> None:
    async def answer(call: Any) -> None:
        await call.tool(0, id="a", name="one", arguments='{"x"')
        await call.tool(2, id="b", name="two")
        await call.tool(0, arguments=": 1}")
        await call.end("tool_calls")

    chunks = [chunk async for chunk in await ask(client, story.then(answer))]
    parts = [part for c in chunks if c.choices for part in c.choices[0].delta.tool_calls or []]
    assert [(p.index, p.id, p.function.name, p.function.arguments) for p in parts] == [
        (0, "a", "one", '{"x"'),
        (2, "b", "two", None),
        (0, None, None, ": 1}"),
    ]


async def test_errors_arrive_with_their_headers(client: openai.AsyncOpenAI, story: Story) -> None:
    story.then(refuse(429, retry_after="3"), refuse(401))
    with pytest.raises(openai.RateLimitError) as limited:
        await ask(client, story)
    assert limited.value.response.headers["retry-after"] == "3"
    with pytest.raises(openai.AuthenticationError):
        await ask(client, story)


async def test_cut_and_reset_and_abort(client: openai.AsyncOpenAI, story: Story) -> None:
    asking = asyncio.create_task(ask(client, story))
    call = await story.call()
    await call.text("half")
    await call.cut()
    assert len([chunk async for chunk in await asking]) == 1
    asking = asyncio.create_task(ask(client, story))
    await (await story.call()).reset()
    with pytest.raises(openai.APIConnectionError):
        await asking
    asking = asyncio.create_task(ask(client, story))
    call = await story.call()
    await call.text("half")
    stream = await asking
    assert not call.gone.is_set()
    await stream.close()
    await call.aborted(2)


async def test_a_bad_request_is_refused_and_kept(client: openai.AsyncOpenAI, stub: Stub, story: Story) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="m", messages=[{"role": "assistant", "content": ""}])
    assert stub.violations == ["messages[0]: an empty assistant message"]
    stub.violations.clear()


USER: Json = {"role": "user", "content": "Hi"}
CALL: Json = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKS: Json = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT: Json = {"role": "tool", "tool_call_id": "a", "content": "ok"}


@pytest.mark.parametrize(
    ("messages", "right"),
    [
        ([USER], True),
        ([USER, ASKS, RESULT], True),
        ([USER, ASKS, RESULT, USER], True),
        ([USER, ASKS], False),
        ([USER, ASKS, USER, RESULT], False),
        ([USER, ASKS, RESULT, RESULT], False),
        ([USER, RESULT], False),
        ([USER, {**ASKS, "tool_calls": []}], False),
        ([USER, {**ASKS, "tool_calls": [CALL, CALL]}, RESULT], False),
        ([USER, {"role": "assistant", "content": "Hi"}], False),
        ([{"role": "person", "content": "Hi"}], False),
        ([{"role": "user", "content": ""}], False),
        ([], False),
    ],
)
async def test_the_strict_provider_knows_right_from_wrong(messages: list[Json], right: bool) -> None:
    assert (complaints({"model": "m", "messages": messages}) == []) is right


def log_of(*events: Json) -> list[Record]:
    created = {"type": "conversation.created", "agent": "a", "title": "", "owner": "o"}
    numbered = [{"seq": seq, "at": 0, **event} for seq, event in enumerate([created, *events], 1)]
    return [Record(event["seq"], json.dumps(event), event) for event in numbered]


STARTED: Json = {"type": "run.started", "run": "r", "agent": "a", "message": "m"}
STEP: Json = {"type": "step.started", "run": "r", "step": 1, "attempt": 1, "model": "m"}
PIECE: Json = {"type": "text.streamed", "run": "r", "step": 1, "attempt": 1, "offset": 0, "text": "He"}
REPLIED: Json = {"type": "model.replied", "run": "r", "step": 1, "attempt": 1, "text": "Hey", "calls": []}
DONE: Json = {"type": "run.completed", "run": "r"}
WHOLE = [STARTED, STEP, PIECE, REPLIED, DONE]


@pytest.mark.parametrize(
    "events",
    [
        [STARTED, STEP, DONE],
        [STARTED, STEP, REPLIED, REPLIED, DONE],
        [STARTED, STEP, REPLIED, DONE, DONE],
        [STARTED, STEP, REPLIED, DONE, PIECE],
        [STARTED, STARTED],
        [STARTED, STEP, {**REPLIED, "calls": [{"call": "k"}]}, DONE],
        [STARTED, STEP, REPLIED, {"type": "tool.returned", "run": "r", "call": "k"}, DONE],
        [STARTED, {**STEP, "step": 2}],
        [{"type": "hint.given", "message": "h"}],
        [{**STARTED, "cause": "c"}, {**STEP, "cause": "c"}],
    ],
)
async def test_faults_finds_each_fault(events: list[Json]) -> None:
    assert faults(log_of(*WHOLE)) == []
    assert faults(log_of(*events))


async def test_surviving_leaves_out_what_is_superseded() -> None:
    left = [record.type for record in surviving(log_of(*WHOLE))]
    assert left == ["conversation.created", "run.started", "step.started", "model.replied", "run.completed"]


async def test_differences_finds_each_difference() -> None:
    seen, log = log_of(*WHOLE), surviving(log_of(*WHOLE))
    assert differences(seen, 6, log) == Differences()
    assert differences([r for r in seen if r.seq != 5], 6, log).lost == [5]
    assert differences([*seen, seen[-1]], 6, log).doubled == [6]
    assert differences([seen[1], seen[0], *seen[2:]], 6, log).reordered == [1]
    assert differences(seen, 6, log[:-1]).phantom == [6]
    assert differences(seen[:4], 4, log[:3]).phantom == [4]


ATTACHED: Json = {"type": "attached", "after": 0, "head": 2, "reset": False, "log": "L"}


@pytest.mark.parametrize(
    "frames",
    [
        [{"type": "live", "through": 0}],
        [ATTACHED, ATTACHED],
        [{**ATTACHED, "after": 1}],
        [ATTACHED, {"type": "live", "through": 0}],
        [ATTACHED, {"type": "events", "after": 1, "through": 2, "events": []}],
        [ATTACHED, {"type": "events", "after": 0, "through": 1, "events": [{"seq": 2, "type": "x"}]}],
        [
            ATTACHED,
            {"type": "events", "after": 0, "through": 2, "events": [{"seq": 2, "type": "x"}, {"seq": 1, "type": "x"}]},
        ],
        [ATTACHED, {"type": "events", "after": 0, "through": 2, "events": [{**PIECE, "seq": 1, "offset": 1}]}],
        [ATTACHED, {"type": "accepted", "id": "c", "seq": 0, "duplicate": False}],
        [{**ATTACHED, "head": 0}, {"type": "live", "through": 0}, {"type": "heartbeat", "head": 1, "at": 0}],
        [{**ATTACHED, "pad": "x" * 1_000_000}],
    ],
)
async def test_the_follower_finds_each_broken_rule(frames: list[Json]) -> None:
    follower = Follower()
    with pytest.raises(Broken):
        for frame in frames:
            follower.receive(json.dumps(frame))


async def test_records_keep_their_exact_text() -> None:
    text = '{"type":"events","after":0,"through":2,"events":[ {"seq":1, "a":"\\"events\\":["},{"seq":2}]}'
    assert [record.text for record in records_in(text)] == ['{"seq":1, "a":"\\"events\\":["}', '{"seq":2}']
    assert records_in('{"events":[]}') == []
