"""SEMANTICS.md §9: whatever a provider does, the run ends right or says why.

An idle limit of 1 s stands for 60 s.
"""

from __future__ import annotations

import json
import time

import pytest

from .harness import API_KEY, Client, Server, fresh, settled
from .history import Json
from .stub import Answer, Call, Story, Use, refuse, reset, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

SETTINGS = {"HOLDFAST_MODEL_IDLE_SECONDS": "1"}


async def answered(server: Server, story: Story, *answers: Answer, within: float = 20) -> Client:
    """A whole run with these answers; its reader, once it has ended and its log was found right."""
    tab = await server.open()
    story.then(*answers)
    await tab.do("prompt", text=story.says("Answer"))
    await tab.ended(within=within)
    await settled(server, tab)
    return tab


async def test_what_is_asked(server: Server, story: Story) -> None:
    """Key, model, streaming, usage, instructions, tools: as a provider expects them."""
    await answered(server, story, say("Yes."))
    [call] = story.calls
    assert call.headers["authorization"] == f"Bearer {API_KEY}"
    assert (call.body["model"], call.body["stream"]) == ("stub-1", True)
    assert call.body["stream_options"]["include_usage"] is True
    assert call.messages[0]["role"] in ("system", "developer") and "Do as you are told." in call.messages[0]["content"]
    assert {"once", "tick", "reserve"} <= set(call.tools)


async def test_429_with_retry_after(server: Server, story: Story) -> None:
    """FAULTS 75: waits as told; `retry_at` says until when."""
    tab = await answered(server, story, refuse(429, "slow down", retry_after="1"), say("Now."))
    assert story.calls[1].at - story.calls[0].at >= 1
    [failed] = tab.all("model.failed")
    assert 900 <= failed["retry_at"] - failed["at"] <= 2000


async def test_429_with_a_retry_after_without_end(server: Server, story: Story) -> None:
    """FAULTS 75: capped, and a cancel ends the wait."""
    tab = await server.open()
    story.then(refuse(429, retry_after="99999999"))
    await tab.do("prompt", text=story.says("Answer"))
    failed = await tab.event("model.failed")
    assert failed["retry_at"] - failed["at"] <= 300_000
    await tab.do("cancel")
    assert (await tab.ended())["type"] == "run.cancelled"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_trouble_that_passes(server: Server, story: Story, status: int) -> None:
    """FAULTS 75, 76: retried with backoff, without Retry-After too; no step is spent; the error is shown."""
    tab = await answered(server, story, refuse(status), say("Now."))
    [failed] = tab.all("model.failed")
    assert failed["error"]["kind"] and failed["error"]["message"] and failed["retry_at"] > failed["at"]
    assert [(e["step"], e["attempt"]) for e in tab.all("step.started")] == [(1, 1), (1, 2)]
    assert tab.all("run.completed")[0]["steps"] == 1


async def test_a_reset_before_the_first_byte(server: Server, story: Story) -> None:
    """FAULTS 76."""
    tab = await answered(server, story, reset, say("Now."))
    assert len(tab.all("model.failed")) == 1 and tab.all("run.completed")


@pytest.mark.parametrize("begun", [False, True])
async def test_a_stall(server: Server, story: Story, begun: bool) -> None:
    """FAULTS 77: before the first token or between two: after the idle time the step again; what was shown is ended."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Answer"))
    call = await story.call()
    if begun:
        await call.text("Half")
        await tab.shows("Half")
    began = time.monotonic()
    await call.aborted(5)
    assert time.monotonic() - began < 4
    story.then(say("Whole."))
    await tab.ended()
    ends = tab.all("model.interrupted" if begun else "model.failed")
    assert len(ends) == 1 and (not begun or (ends[0]["reason"], ends[0]["text"]) == ("stall", "Half"))
    assert [event["text"] for event in tab.all("model.replied")] == ["Whole."]
    await settled(server, tab)


async def cut_in_mid_text(call: Call) -> None:
    await call.text("Half")
    await call.cut()


async def done_without_a_reason(call: Call) -> None:
    await call.text("Half")
    await call.raw(b"data: [DONE]\n\n")
    await call.cut()


async def reset_in_mid_text(call: Call) -> None:
    await call.text("Half")
    await call.reset()


@pytest.mark.parametrize("answer", [cut_in_mid_text, done_without_a_reason, reset_in_mid_text])
async def test_a_cut_is_no_answer(server: Server, story: Story, answer: Answer) -> None:
    """FAULTS 78: a reply without a finish reason is a failure, and the same request is made again."""
    tab = await answered(server, story, answer, say("Whole."))
    assert story.calls[1].messages == story.calls[0].messages
    assert [event["text"] for event in tab.all("model.replied")] == ["Whole."]
    assert len(tab.all("model.interrupted") + tab.all("model.failed")) == 1


async def test_half_a_tool_call_is_never_run(server: Server, story: Story) -> None:
    """§1: arguments that were cut, even where they parse."""
    line = fresh("line")

    async def half(call: Call) -> None:
        await call.tool(0, id="k1", name="once", arguments=json.dumps({"line": line}))
        await call.cut()

    await answered(server, story, half, say("Whole."))
    assert server.ledger(line) == []


def pieces(*parts: bytes) -> Answer:
    async def answer(call: Call) -> None:
        for part in parts:
            await call.raw(part)
        await call.cut()

    return answer


def data(delta: str, finish: str = "null", end: str = "\n\n") -> bytes:
    chunk = '"id":"x","object":"chat.completion.chunk","created":1,"model":"m"'
    choice = f'{{"index":0,"delta":{delta},"finish_reason":{finish}}}'
    return f'data: {{{chunk},"choices":[{choice}]}}{end}'.encode()


@pytest.mark.parametrize(
    "answer",
    [
        pieces(
            b": a comment\n\n", data('{"content":"Grüße"}'), b": another\n\n", data("{}", '"stop"'), b"data: [DONE]\n\n"
        ),
        pieces(data('{"content":"Grüße"}', end="\r\n\r\n"), data("{}", '"stop"', "\r\n\r\n"), b"data: [DONE]\r\n\r\n"),
        pieces(*(bytes([byte]) for byte in data('{"content":"Grüße"}')), data("{}", '"stop"'), b"data: [DONE]\n\n"),
        pieces(b"event: message\nid: 1\nretry: 5\n" + data('{"content":"Grüße"}'), data("{}", '"stop"')),
        pieces(
            data('{"content":"Grüße"}'), data('{"content":null}'), data('{"content":""}', '"stop"'), b"data: [DONE]\n\n"
        ),
    ],
    ids=["comments", "crlf", "byte-by-byte", "fields", "nulls"],
)
async def test_odd_but_right_streams(server: Server, story: Story, answer: Answer) -> None:
    """FAULTS 79: comments, CRLF, split UTF-8, other fields: the parser survives."""
    tab = await answered(server, story, answer)
    assert [event["text"] for event in tab.all("model.replied")] == ["Grüße"]


@pytest.mark.parametrize(
    "answer",
    [
        pieces(data('{"content":"a"}'), b"data: {broken\n\n"),
        pieces(b"data: [1, 2]\n\n", data("{}", '"stop"')),
        pieces(b'data: {"choices": "none"}\n\n'),
        pieces(b"\xff\xfe\xfd" * 100 + b"\n\n"),
        pieces(b"<html>502 Bad Gateway</html>"),
        pieces(b'data: {"error": {"message": "overloaded", "code": 529}}\n\n'),
        pieces(b"data: " + b"x" * 10_000_000 + b"\n\n"),
    ],
    ids=["broken", "array", "choices", "bytes", "html", "error", "10-mb-line"],
)
async def test_malformed_streams(server: Server, story: Story, answer: Answer) -> None:
    """FAULTS 79: a step error, tried again; no traceback, no dead run."""
    tab = await answered(server, story, answer, say("Whole."))
    assert [event["text"] for event in tab.all("model.replied")][-1] == "Whole."
    assert tab.all("run.completed")


@pytest.mark.parametrize("finish", ["length", "content_filter"])
async def test_other_finish_reasons_are_shown(server: Server, story: Story, finish: str) -> None:
    """FAULTS 80, 86: the run ends in a defined state, and `finish` says how the reply did."""
    tab = await answered(server, story, say("As far as", finish=finish), say("It went."))
    assert tab.all("model.replied")[0]["finish"] == finish
    assert tab.all("model.replied")[0]["text"] == "As far as"


async def silent(call: Call) -> None:
    await call.delta({}, "stop")
    await call.raw(b"data: [DONE]\n\n")
    await call.cut()


async def test_an_empty_answer(server: Server, story: Story) -> None:
    """FAULTS 86: visible, a defined end; and the next run's history is one that a strict provider takes."""
    tab = await server.open()
    story.brain = lambda call: silent if len(story.calls) < 4 else say("Something.")
    await tab.do("prompt", text=story.says("Answer"))
    await tab.ended()
    assert len(story.calls) <= 4
    await tab.do("prompt", text=story.says("Anything?"))
    await tab.ended(2)
    await settled(server, tab)


async def refusing(call: Call) -> None:
    await call.delta({"refusal": "I will not."})
    await call.end()


async def test_a_refusal(server: Server, story: Story) -> None:
    """FAULTS 86: the model's `refusal` field is words like others: shown, and a defined end."""
    tab = await answered(server, story, refusing)
    assert [event["text"] for event in tab.all("model.replied")] == ["I will not."]
    assert (await server.outcome(tab.run))["result"] == "I will not."


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_what_will_not_pass_is_not_retried(server: Server, story: Story, status: int) -> None:
    """FAULTS 87: one request, a clear error, the key shown nowhere, though the provider repeats it."""
    tab = await answered(server, story, refuse(status, f"Incorrect API key provided: {API_KEY}"))
    assert (await tab.ended())["type"] == "run.failed" and len(story.calls) == 1
    assert tab.all("run.failed")[0]["error"]["message"]
    assert all(API_KEY not in record.text for record in tab.records)
    item = await server.get(f"/api/runs/{tab.run}")
    assert API_KEY not in json.dumps(item)


@pytest.mark.parametrize("arguments", ["{broken", "", "[1]", '"text"', '{"line": 5}', "{}"])
async def test_arguments_that_do_not_fit(server: Server, story: Story, arguments: str) -> None:
    """FAULTS 81: an error result goes back to the model, which may do better."""
    tab = await answered(server, story, use(Use("once", arguments, id="k1")), say("My mistake."))
    [failed] = tab.all("tool.failed", call="k1")
    assert failed["error"]["kind"] == "bad_arguments" and story.calls[1].results["k1"]
    assert tab.all("tool.started") == [] and tab.all("run.completed")
    assert tab.all("model.replied")[0]["calls"][0]["arguments"] == arguments


@pytest.mark.parametrize("wrong", [Use("once", "{broken"), Use("no_such_tool", "{}")])
async def test_three_times_wrong_is_enough(server: Server, story: Story, wrong: Use) -> None:
    """FAULTS 81, 82: after three the run fails; it does not go on for ever."""
    story.brain = lambda _: use(Use(wrong.tool, wrong.arguments))
    tab = await answered(server, story)
    assert (await tab.ended())["type"] == "run.failed"
    assert len(story.calls) == 3 and len(tab.all("tool.failed")) == 3


async def test_an_unknown_tool(server: Server, story: Story) -> None:
    """FAULTS 82: told to the model; a right call beside it runs."""
    both = use(Use("no_such_tool", {"a": 1}, id="k1"), Use("tick", {"number": 1}, id="k2"))
    tab = await answered(server, story, both, say("I see."))
    assert tab.all("tool.failed", call="k1")[0]["error"]["kind"] == "unknown_tool"
    assert story.calls[1].results["k2"] == "tick 1" and story.calls[1].results["k1"]


@pytest.mark.parametrize("name", ["", "no such tool", "functions.search", "n" * 70, "süß"])
async def test_a_name_that_no_tool_has(server: Server, story: Story, name: str) -> None:
    """FAULTS 82: made up by the model, and refused by the provider that it came from, were it told as it is."""
    tab = await answered(server, story, use(Use(name, "{}", id="k1")), say("I see."))
    assert tab.all("tool.failed", call="k1")[0]["error"]["kind"] == "unknown_tool"
    assert tab.all("model.replied")[0]["calls"][0]["tool"] == name
    assert story.calls[1].results["k1"] and tab.all("run.completed")


async def test_ids_that_begin_anew_in_each_run(server: Server, story: Story) -> None:
    """FAULTS 83, 002-10: some providers number the calls of each reply; none is told two calls of one id."""
    tab = await server.open()
    for number in range(1, 4):
        story.then(use(Use("tick", {"number": number}, id="call_0")), say("Ticked."))
        await tab.do("prompt", text=story.says(f"Tick {number}"))
        assert (await tab.ended(number))["type"] == "run.completed"
        assert story.calls[-1].results["call_0"] == f"tick {number}", "the newest comes back as the model wrote it"
    assert [event["call"] for event in tab.all("tool.returned")] == ["call_0"] * 3, "unique within the run"
    assert set(story.calls[-1].results.values()) == {"tick 1", "tick 2", "tick 3"}
    await settled(server, tab)


def ticks(*parts: Json) -> Answer:
    """Chunks of tool calls, each with only what is given."""

    async def answer(call: Call) -> None:
        for part in parts:
            await call.delta({"tool_calls": [part]})
        await call.end("tool_calls")

    return answer


def part(index: int | None, id: str | None = None, name: str | None = None, arguments: str | None = None) -> Json:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    whole = {"index": index, "id": id, "type": "function" if id else None, "function": function}
    return {key: value for key, value in whole.items() if value is not None}


@pytest.mark.parametrize(
    "answer",
    [
        ticks(part(0, "a", "tick", '{"number": 1}'), part(1, "a", "tick", '{"number": 2}')),
        ticks(part(0, None, "tick", '{"number": 1}'), part(1, None, "tick", '{"number": 2}')),
        ticks(part(0, "", "tick", '{"number": 1}'), part(1, "", "tick", '{"number": 2}')),
        ticks(part(3, "a", "tick", '{"number": 1}'), part(7, "b", "tick", '{"number": 2}')),
        ticks(
            part(0, "a", "tick", ""),
            part(1, "b", "tick", '{"num'),
            part(0, None, None, '{"number": 1'),
            part(1, None, None, 'ber": 2}'),
            part(0, None, None, "}"),
        ),
        ticks(part(0, "a", None, '{"number"'), part(0, None, "tick", ": 1}"), part(1, "b", "tick", '{"number": 2}')),
    ],
    ids=["equal-ids", "no-ids", "empty-ids", "index-gaps", "mixed-pieces", "arguments-before-name"],
)
async def test_tool_calls_are_normalised(server: Server, story: Story, answer: Answer) -> None:
    """FAULTS 83: whatever the ids and the order of the pieces: two calls, unique ids, each with its result."""
    tab = await answered(server, story, answer, say("Two."))
    [first, _] = tab.all("model.replied")
    ids = [call["call"] for call in first["calls"]]
    assert len(set(ids)) == 2 and all(ids)
    assert [json.loads(call["arguments"]) for call in first["calls"]] == [{"number": 1}, {"number": 2}]
    assert story.calls[1].results == {ids[0]: "tick 1", ids[1]: "tick 2"}


async def test_a_call_id_that_repeats_within_the_run(server: Server, story: Story) -> None:
    """FAULTS 83: the second step uses the first one's id again: made unique, and the model gets its own pairs back."""
    again = use(Use("tick", {"number": 2}, id="same"))
    tab = await answered(server, story, use(Use("tick", {"number": 1}, id="same")), again, say("Two."))
    ids = [event["calls"][0]["call"] for event in tab.all("model.replied")[:2]]
    assert ids[0] == "same" and ids[1] != "same"
    assert sorted(story.calls[2].results.values()) == ["tick 1", "tick 2"]


async def test_a_provider_without_end_marks_of_calls(server: Server, story: Story) -> None:
    """Calls with `finish_reason: stop` are calls nevertheless; text beside them is kept."""

    async def answer(call: Call) -> None:
        await call.text("Ticking.")
        await call.use(Use("tick", {"number": 1}, id="k1"))
        await call.end("stop")

    tab = await answered(server, story, answer, say("Done."))
    assert tab.all("tool.returned", call="k1")


async def test_a_flood_of_small_chunks(server: Server, story: Story) -> None:
    """FAULTS 88: 20,000 chunks as fast as they go: every character there, not an event for each."""
    words = [f"{number} " for number in range(20_000)]

    async def answer(call: Call) -> None:
        for begin in range(0, len(words), 100):
            await call.raw(b"".join(data(json.dumps({"content": word})) for word in words[begin : begin + 100]))
        await call.end()

    began = time.monotonic()
    tab = await answered(server, story, answer, within=40)
    took = time.monotonic() - began
    assert tab.all("model.replied")[0]["text"] == "".join(words)
    assert len(tab.all("text.streamed")) <= 20 * took + 20


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": None},
        {"prompt_tokens": -5, "completion_tokens": "many"},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": True, "completion_tokens": 1.5},
        {"prompt_tokens": 10**30, "completion_tokens": 1},
    ],
)
async def test_wrong_or_missing_usage_is_estimated(server: Server, story: Story, usage: Json | None) -> None:
    """FAULTS 89: the figures are ours and say so."""

    async def answer(call: Call) -> None:
        await call.text("One two three four five.")
        call.usage = None
        if usage is not None:
            await call.chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage})
            await call.raw(b"data: [DONE]\n\n")
            await call.cut()
        else:
            await call.end()

    tab = await answered(server, story, answer)
    figures = tab.all("model.replied")[0]["usage"]
    assert figures["estimated"] is True and figures["input"] > 0 and figures["output"] > 0


async def test_reasoning_is_not_sent_back_as_an_answer(server: Server, story: Story) -> None:
    """Reasoning is shown and kept, but is no part of what the assistant said."""
    await answered(server, story, say("Answer.", reasoning="Secret thoughts"))
    tab = await server.open()
    story.then(use(Use("tick", {"number": 1}), text="One."), say("Two."))
    await tab.do("prompt", text=story.says("Go"))
    await tab.ended()
    assert all("Secret thoughts" not in (m.get("content") or "") for call in story.calls for m in call.messages)


async def test_more_calls_than_one_reply_may_ask_for(server: Server, story: Story) -> None:
    """P8, FAULTS 84: 200 calls in one reply: 128 run, each with its result, and the reply says that it was cut."""
    asked = use(*(Use("tick", {"number": number}, id=f"k{number}") for number in range(200)))
    tab = await answered(server, story, asked, say("Enough."))
    first, _ = tab.all("model.replied")
    most = tab.attached["limits"]["attempt_calls"]
    assert (len(first["calls"]), most, first["finish"]) == (128, 128, "limit")
    assert sorted(story.calls[1].results) == sorted(f"k{number}" for number in range(128))
    await settled(server, tab)
