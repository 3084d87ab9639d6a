"""Whatever a provider streams, the reply comes out whole or a ModelError does, and what came out can be logged.

Structure-aware: chunks that are almost right, written as server-sent events in every style, cut anywhere, with rubbish
in between. `--fuzz N` makes up N inputs in all, here and in tests/wire/test_fuzz.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.agent.model import Finished, ModelError, ReasoningDelta, Request, TextDelta
from app.agent.model_openai import OpenAIModel
from app.core import commands as c
from app.core.codec import encode
from app.core.transcript import messages
from tests.core.stage import Stage
from tests.core.test_properties import check_strict

texts = st.one_of(
    st.sampled_from(["", "a", "Hello ", "\ud83d", "\ude00", "\x00", "\u2028", "ü", "{", '"}', '{"n": 1}', "x" * 500]),
    st.text(st.characters(), max_size=10),
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.integers(-(2**70), 2**70), st.floats(), texts)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


def mostly(fitting: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A fitting value as a rule, anything now and then."""
    return st.integers(0, 11).flatmap(lambda n: anything if n == 0 else fitting)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with some of these fields."""
    return st.fixed_dictionaries({}, optional={name: mostly(value) for name, value in fields.items()})


names = st.sampled_from(["never", "safe", "guarded", "missing", "", "ne", "ver"])
functions = some(name=st.none() | names, arguments=st.none() | texts | st.dictionaries(texts, scalars, max_size=2))
entries = some(
    index=st.none() | st.integers(-1, 3), id=st.none() | st.sampled_from(["a", "b", ""]), type=texts, function=functions
)
parts = st.lists(some(type=texts, text=texts), max_size=2)
deltas = some(
    role=texts,
    content=st.none() | texts | parts,
    refusal=st.none() | texts,
    reasoning=st.none() | texts,
    reasoning_content=st.none() | texts,
    tool_calls=st.none() | st.lists(mostly(entries), max_size=3),
    function_call=functions,
)
finishes = st.sampled_from([None, None, None, "stop", "tool_calls", "length", "content_filter", "error", ""])
choices = some(index=st.sampled_from([0, 0, 0, None, 1]), delta=deltas, message=deltas, finish_reason=finishes)
counts = st.integers(-1, 9)
usages = some(
    prompt_tokens=counts,
    completion_tokens=counts,
    prompt_tokens_details=some(cached_tokens=counts),
    total_tokens=counts,
)
chunks = some(
    choices=st.lists(mostly(choices), max_size=2),
    usage=st.none() | usages,
    error=st.none() | some(message=texts, code=texts),
)
good_chunks = some(choices=st.lists(choices, min_size=1, max_size=1), usage=st.none() | usages)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """The pieces in which the bytes of a stream come."""
    end = draw(st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"]))
    body = bytearray(draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf", b": hello" + end + end])))
    for chunk in draw(st.lists(st.one_of(good_chunks, good_chunks, chunks), max_size=8)):
        body += b"data: " + json.dumps(chunk, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
        body += end + draw(st.sampled_from([end, end, end, b": ping" + end + end, b"", b"event: x" + end + end]))
    if draw(st.booleans()):
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": draw(finishes)}]}
        body += b"data: " + json.dumps(last).encode() + end + end
    body += draw(st.sampled_from([b"data: [DONE]" + end + end, b"data: [DONE]", b"", b"data: {", b"\xff\xfe"]))
    if draw(st.integers(0, 5)) == 0 and body:
        at = draw(st.integers(0, len(body) - 1))
        body[at : at + draw(st.integers(0, 5))] = draw(st.binary(max_size=5))
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=8)))
    return [bytes(body[a:b]) for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]


class Response:
    """The part of an HTTP answer that a stream is read from."""

    def __init__(self, pieces: list[bytes], kind: str) -> None:
        self.headers = {"content-type": kind}
        self._pieces = pieces

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


class Canned(OpenAIModel):
    """The model as it is, but for the connection."""

    answer: Response

    async def _open(self, stack: Any, body: Any) -> Any:
        return self.answer


async def listen(model: Canned, heard: list[Any]) -> ModelError | None:
    try:
        async for delta in model.stream(Request(model="", messages=[], tools=[])):
            if not isinstance(delta, Finished):
                delta.text.encode()  # also of a reply that fails later
            heard.append(delta)
    except ModelError as error:
        return error
    return None


def judge(heard: list[Any], error: ModelError | None) -> None:
    """A whole reply ends with exactly one Finished; an error comes instead of it. Everything can be encoded."""
    ends = [delta for delta in heard if isinstance(delta, Finished)]
    assert len(ends) == (0 if error else 1)
    assert all(isinstance(delta, TextDelta | ReasoningDelta | Finished) for delta in heard)
    if error is not None:
        assert error.kind and str(error) and len(str(error)) < 2_000
        str(error).encode()
        return
    assert heard[-1] is ends[0] and ends[0].finish
    log_it("".join(delta.text for delta in heard if isinstance(delta, TextDelta)), ends[0])


def log_it(text: str, end: Finished) -> None:
    """What came out is decided and written, and the model can be asked again with it."""
    stage = Stage()
    stage.prompt()
    effect = stage.model
    stage.report(c.Replied(effect, text, "", end.calls, end.finish, end.usage, asked=40))
    for event in stage.log:
        msgspec.json.decode(encode(event))
    while stage.state.run is not None and stage.tools:
        call = stage.tools[0]
        stage.begin(call)
        stage.end(call)
    if stage.state.run is not None and stage.state.run.top.asking:
        check_strict(messages(stage.state, (), stage.rules))


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
def test_no_stream_breaks_anything(kind: str, request: pytest.FixtureRequest) -> None:
    """FAULTS 78, 79, 81, 82, 83: malformed events, split characters, bad calls; ModelError or a reply, nothing else."""
    share = 3 if kind == "text/event-stream" else 30
    count = int(request.config.getoption("--fuzz")) // share
    model = Canned("m", "sk-canary-key-123456")
    loop = asyncio.new_event_loop()

    @settings(max_examples=max(count, 10), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(streams())
    def inner(pieces: list[bytes]) -> None:
        model.answer = Response(pieces, kind)
        heard: list[Any] = []
        judge(heard, loop.run_until_complete(listen(model, heard)))

    try:
        inner()
    finally:
        loop.run_until_complete(model.close())
        loop.close()
