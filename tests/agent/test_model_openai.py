"""The model over HTTP against a real server: what it sends, what it makes of answers, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.agent.model import Delta, Finished, Model, ModelError, Request, TextDelta
from app.agent.model_openai import OpenAIModel
from app.core.events import Call, Json, Usage

from .provider import Exchange, Provider, running

KEY = "sk-canary-0123456789"
HELLO: list[Json] = [{"role": "user", "content": "hello"}]
TOOL: Json = {"type": "function", "function": {"name": "one", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with running() as found:
        yield found


@pytest.fixture
async def model(provider: Provider) -> AsyncIterator[OpenAIModel]:
    found = OpenAIModel("small", KEY, provider.url, connect_seconds=2)
    yield found
    await found.close()


async def hear(model: Model, /, **fields: Any) -> list[Delta]:
    return [delta async for delta in model.stream(Request(**{"model": "", "messages": HELLO, **fields}))]


async def fail(model: Model) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await hear(model)
    error = caught.value
    assert KEY not in error.message and len(error.message) <= 500 and "\n" not in error.message
    assert error.__suppress_context__ or error.__context__ is None, "a logged traceback must not quote the provider"
    return error


async def test_a_whole_reply(provider: Provider, model: OpenAIModel) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.raw(b": a comment\r\n\r\n")
        await exchange.chunk({"choices": [{"delta": {"role": "assistant", "reasoning_content": "hm"}}]})
        raw = 'data: {"choices":[{"delta":{"content":"schöne\u2028Grüße"}}]}\n\n'.encode()
        for at in range(0, len(raw), 5):
            await exchange.raw(raw[at : at + 5])
        call = {"index": 0, "id": "a", "function": {"name": "one", "arguments": '{"x":'}}
        await exchange.chunk({"choices": [{"delta": {"tool_calls": [call]}}]})
        more = {"index": 0, "function": {"arguments": "1}"}}
        await exchange.chunk({"choices": [{"delta": {"tool_calls": [more]}, "finish_reason": "tool_calls"}]})
        await exchange.chunk({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
        await exchange.end()

    provider.script = script
    deltas = await hear(model, tools=[TOOL])
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == "schöne\u2028Grüße"
    end = Finished("tool_calls", [Call(call="a", tool="one", arguments='{"x":1}')], Usage(input=5, output=2))
    assert deltas[-1] == end

    [exchange] = provider.exchanges
    assert (exchange.path, exchange.headers["authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert exchange.body == {
        "model": "small",
        "messages": HELLO,
        "tools": [TOOL],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_the_next_call_uses_the_same_connection(provider: Provider, model: OpenAIModel) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.text("hi", "stop")
        await exchange.raw(b"data: [DONE]\n\n")
        await asyncio.sleep(0.02)
        await exchange.end(done=False)

    provider.script = script
    await hear(model)
    await hear(model, model="large")
    assert [exchange.connection for exchange in provider.exchanges] == [1, 1]
    assert "tools" not in provider.exchanges[0].body
    assert provider.exchanges[1].body["model"] == "large"


async def test_a_provider_that_does_not_stream(provider: Provider, model: OpenAIModel) -> None:
    async def script(exchange: Exchange) -> None:
        message = {"role": "assistant", "content": "all at once"}
        await exchange.status(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    provider.script = script
    assert await hear(model) == [TextDelta("all at once"), Finished("stop", [], None)]


async def test_stream_options_are_given_up_once_and_for_all(provider: Provider, model: OpenAIModel) -> None:
    async def script(exchange: Exchange) -> None:
        if "stream_options" in exchange.body:
            await exchange.status(400, {"error": {"message": "Unrecognized request argument: stream_options"}})
        else:
            await exchange.begin()
            await exchange.text("hi", "stop")
            await exchange.end()

    provider.script = script
    for _ in range(2):
        assert (await hear(model))[-1] == Finished("stop", [], None)
    assert ["stream_options" in exchange.body for exchange in provider.exchanges] == [True, False, False]


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "retryable", "retry_after"),
    [
        (429, {"error": {"message": "slow"}}, {"Retry-After": "3"}, "rate_limited", True, 3.0),
        (429, {"error": {"message": "slow"}}, {"Retry-After-Ms": "1500"}, "rate_limited", True, 1.5),
        (503, "<html>busy</html>", {}, "overloaded", True, None),
        (500, {"error": {"message": f"crash with {KEY}"}}, {}, "upstream", True, None),
        (400, {"error": {"message": "no", "code": "context_length_exceeded"}}, {}, "context", False, None),
        (400, {"error": {"message": "unknown stream_options_x"}}, {}, "bad_request", False, None),
        (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}, {}, "unauthorized", False, None),
        (404, {"error": {"message": "no such model"}}, {}, "not_found", False, None),
    ],
)
async def test_refusals(
    provider: Provider,
    model: OpenAIModel,
    status: int,
    body: object,
    headers: dict[str, str],
    kind: str,
    retryable: bool,
    retry_after: float | None,
) -> None:
    provider.script = lambda exchange: exchange.status(status, body, headers)
    error = await fail(model)
    assert (error.kind, error.retryable, error.retry_after) == (kind, retryable, retry_after)
    assert len(provider.exchanges) <= 2, "nothing is retried here"


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([b"data: [DONE]\n\n"], "cut"),
        ([b'data: {"choices":[{"delta":{"content":"half"}}]}\n\n'], "cut"),
        ([b'data: {"choices":[{"delta":{"content":"half"}}]}\n\n', b'data: {"choi'], "cut"),
        ([b"data: {not json}\n\n"], "malformed"),
        ([b"data: [1, 2]\n\n"], "malformed"),
        ([b"data: \xff\xfe\n\n"], "malformed"),
        ([b"data: " + b"[" * 200_000 + b"\n\n"], "malformed"),
        ([b'data: {"error":{"message":"busy","code":429}}\n\n'], "rate_limited"),
        ([b'event: error\ndata: {"error":"overloaded"}\n\n'], "overloaded"),
        (
            [b'data: {"choices":[{"delta":{},"finish_reason":"error","error":{"message":"x","code":502}}]}\n\n'],
            "upstream",
        ),
    ],
)
async def test_broken_streams(provider: Provider, model: OpenAIModel, pieces: list[bytes], kind: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        for piece in pieces:
            await exchange.raw(piece)
        await exchange.end(done=False)

    provider.script = script
    error = await fail(model)
    assert (error.kind, error.retryable) == (kind, True)


@pytest.mark.parametrize("when", ["before the status", "before the first byte", "in the middle", "after the finish"])
async def test_a_connection_that_breaks(provider: Provider, model: OpenAIModel, when: str) -> None:
    async def script(exchange: Exchange) -> None:
        if when != "before the status":
            await exchange.begin()
        if when in ("in the middle", "after the finish"):
            await exchange.text("half", "stop" if when == "after the finish" else None)
        await asyncio.sleep(0.02)
        exchange.cut()

    provider.script = script
    if when == "after the finish":
        assert (await hear(model))[-1] == Finished("stop", [], None)
    else:
        error = await fail(model)
        assert (error.kind, error.retryable) == ("upstream" if when == "before the status" else "cut", True)


async def test_nobody_there(unused_tcp_port: int) -> None:
    model = OpenAIModel("small", KEY, f"http://user:{KEY}@127.0.0.1:{unused_tcp_port}/v1")
    error = await fail(model)
    assert (error.kind, error.retryable) == ("upstream", True)
    await model.close()


async def test_a_request_that_cannot_be_encoded(model: OpenAIModel) -> None:
    with pytest.raises(ModelError) as caught:
        await hear(model, messages=[{"role": "user", "content": object()}])
    assert (caught.value.kind, caught.value.retryable) == ("bad_request", False)


async def test_ten_megabytes_in_one_line(provider: Provider, model: OpenAIModel) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.text("x" * 9_000_000, "stop")
        await exchange.end()

    provider.script = script
    first, *_ = await hear(model)
    assert isinstance(first, TextDelta) and len(first.text) == 9_000_000


@pytest.mark.parametrize("where", ["waiting for the status", "in the stream", "between chunks"])
async def test_cancelling_closes_the_connection_at_once(provider: Provider, model: OpenAIModel, where: str) -> None:
    reached, closed = asyncio.Event(), asyncio.Event()

    async def script(exchange: Exchange) -> None:
        if where != "waiting for the status":
            await exchange.begin()
            await exchange.text("hi")
        else:
            reached.set()
        await exchange.gone()
        closed.set()

    async def drive() -> None:
        async for _ in model.stream(Request("", HELLO)):
            reached.set()
            if where == "between chunks":
                await asyncio.sleep(60)

    provider.script = script
    task = asyncio.create_task(drive())
    await asyncio.wait_for(reached.wait(), 5)
    began = time.perf_counter()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await asyncio.wait_for(closed.wait(), 1)
    assert time.perf_counter() - began < 1


async def test_closing_the_iterator_closes_the_connection(provider: Provider, model: OpenAIModel) -> None:
    closed = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.text("hi")
        await exchange.gone()
        closed.set()

    provider.script = script
    stream = model.stream(Request("", HELLO))
    assert await anext(stream) == TextDelta("hi")
    await stream.aclose()
    await asyncio.wait_for(closed.wait(), 1)


async def test_many_streams_at_once(provider: Provider, model: OpenAIModel) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        for number in range(20):
            await exchange.text(f"{exchange.body['model']}.{number} ")
            await asyncio.sleep(0)
        await exchange.text("", "stop")
        await exchange.end()

    provider.script = script
    replies = await asyncio.gather(*(hear(model, model=f"m{number}") for number in range(20)))
    for number, deltas in enumerate(replies):
        text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
        assert text == "".join(f"m{number}.{piece} " for piece in range(20))
