"""PROTOCOL.md §1.2: commands, their receipts and refusals, over the socket and, where it differs, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from .harness import Client, Server, eventually, fresh, settled
from .stub import Story, Use, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]


def code_of(answer: httpx2.Response) -> str:
    """The code of a refusal over HTTP: §2 words it as an error, §1.2 as a `rejected` frame."""
    body = answer.json()
    return str(body["error"]["code"] if "error" in body else body["code"])


async def refusal(tab: Client, frame: Any) -> dict[str, Any]:
    """Send any frame; the refusal that answers it."""
    since = len(tab.frames)
    await tab.post(frame if isinstance(frame, str) else json.dumps(frame))
    return await tab.frame("rejected", since=since)


# --- ids


@pytest.mark.parametrize("id", ["a", "Z9._:-", "x" * 64, "0"])
async def test_ids_that_are_right(server: Server, id: str) -> None:
    tab = await server.open()
    assert (await tab.do("rename", id, title="New"))["id"] == id
    await tab.event("conversation.renamed", cause=id)


@pytest.mark.parametrize("id", ["", "x" * 65, "a b", "ä", "a/b", "a\n", "a\u0000", 5, None, True, ["a"], {"a": 1}])
async def test_ids_that_are_wrong(server: Server, id: Any) -> None:
    """`bad_command`; the connection stays; nothing changed."""
    tab = await server.open()
    head = tab.cursor
    assert (await refusal(tab, {"type": "rename", "id": id, "title": "New"}))["code"] == "bad_command"
    assert (await tab.ping())["head"] == head
    answer = await server.http.post(
        f"/api/conversations/{tab.attached['conversation']}/commands", json={"type": "rename", "id": id, "title": "New"}
    )
    assert (answer.status_code, code_of(answer)) == (400, "bad_command")


async def test_a_frame_without_an_id_is_refused_with_a_null_one(server: Server) -> None:
    tab = await server.open()
    answer = await refusal(tab, {"type": "rename", "title": "New"})
    assert (answer["id"], answer["code"]) == (None, "bad_command")


async def test_ids_are_of_one_conversation(server: Server) -> None:
    """Unique within the conversation, not beyond it."""
    for _ in range(2):
        tab = await server.open()
        assert (await tab.do("rename", "same-id", title="New"))["duplicate"] is False


async def test_bodies_of_repeated_ids_are_not_compared(server: Server) -> None:
    """The same id with another body, of another type, or one that would now be refused: the first receipt."""
    tab = await server.open()
    receipt = await tab.do("rename", "once", title="First")
    assert await tab.do("rename", "once", title="Second") == {**receipt, "duplicate": True}
    assert await tab.do("cancel", "once") == {**receipt, "duplicate": True}
    assert await tab.do("withdraw", "once", target="nothing") == {**receipt, "duplicate": True}
    assert [event["title"] for event in tab.all("conversation.renamed")] == ["First"]


async def test_a_refusal_is_not_remembered(server: Server, story: Story) -> None:
    """The same id again is decided afresh."""
    tab = await server.open()
    await tab.refused("text_empty", "prompt", "again", text="")
    story.then(say("Yes."))
    assert (await tab.do("prompt", "again", text=story.says("Now with words")))["duplicate"] is False
    await tab.ended()


async def test_every_accepted_id_is_the_cause_of_one_event(server: Server, story: Story) -> None:
    """`command.noted` where nothing else happens; the receipt's seq is that event's."""
    tab = await server.open()
    story.then(say("Yes."))
    receipts = [
        await tab.do("cancel"),
        await tab.do("rename", title="Same"),
        await tab.do("rename", title="Same"),
        await tab.do("prompt", text=story.says("Hello")),
    ]
    await tab.ended()
    receipts.append(await tab.do("cancel"))
    log = {record.seq: record.event for record in await settled(server, tab)}
    for receipt in receipts:
        assert log[receipt["seq"]]["cause"] == receipt["id"]
    assert log[receipts[0]["seq"]]["type"] == "command.noted" and log[receipts[0]["seq"]]["outcome"]


async def test_the_message_of_words_is_their_commands_id(server: Server, story: Story) -> None:
    tab = await server.open()
    await tab.do("prompt", "p-1", text=story.says("One"))
    call = await story.call()
    await tab.do("hint", "h-1", text="Two")
    await tab.do("prompt", "p-2", text="Three")
    await tab.event("prompt.given", message="p-1", cause="p-1", text=story.says("One"))
    await tab.event("hint.given", message="h-1", cause="h-1", text="Two")
    await tab.event("prompt.queued", message="p-2", cause="p-2", text="Three")
    assert tab.all("run.started")[0]["message"] == "p-1"
    story.then(say("Both."), say("And that."))
    await call.end()
    await tab.ended(2)
    assert tab.all("run.started")[1]["message"] == "p-2"
    await settled(server, tab)


# --- what each does


async def test_prompt_idle_starts_a_run_busy_is_queued(server: Server, story: Story) -> None:
    """FAULTS 73: never two runs at a time; queued prompts start one run each, in order."""
    tab = await server.open()
    await tab.do("prompt", "one", text=story.says("One"))
    call = await story.call()
    await tab.do("prompt", "two", text="Two")
    await tab.do("prompt", "three", text="Three")
    assert [event["message"] for event in tab.all("prompt.queued")] == ["two", "three"]
    story.then(say("Second."), say("Third."))
    await call.text("First.")
    await call.end()
    await tab.ended(3)
    assert [event["message"] for event in tab.all("run.started")] == ["one", "two", "three"]
    assert [call.words[-1] for call in story.calls] == [story.says("One"), "Two", "Three"]
    await settled(server, tab)


async def test_withdraw(server: Server, story: Story) -> None:
    """FAULTS 68: a hint and a queued prompt can be taken back, until they are delivered; what never was is unknown."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("once", {"line": line, "gate": line})))
    await tab.do("prompt", "p", text=story.says("Work"))
    await server.wrote(line)
    await tab.do("hint", "h-kept", text="Keep me")
    await tab.do("hint", "h-back", text="Take me back")
    await tab.do("prompt", "p-back", text="Take me back too")
    await tab.do("withdraw", "w-1", target="h-back")
    await tab.do("withdraw", "w-2", target="p-back")
    await tab.event("hint.withdrawn", message="h-back", cause="w-1")
    await tab.event("prompt.withdrawn", message="p-back", cause="w-2")
    await tab.refused("not_found", "withdraw", target="never-was")
    await tab.refused("already_delivered", "withdraw", target="p")
    server.let(line)
    call = await story.call()
    assert "Keep me" in call.words and "Take me back" not in call.words
    await tab.refused("already_delivered", "withdraw", target="h-kept")
    await call.end()
    await tab.ended()
    assert len(tab.all("run.started")) == 1
    await settled(server, tab)


async def test_rename(server: Server) -> None:
    tab = await server.open(title="Old")
    await tab.do("rename", "r", title="New ☃")
    await tab.event("conversation.renamed", title="New ☃", cause="r")
    assert (await server.get(f"/api/conversations/{tab.attached['conversation']}"))["title"] == "New ☃"
    assert (await server.attach(tab.attached["conversation"])).follower is not tab.follower


async def test_cancel_of_another_run_is_not_running(server: Server, story: Story) -> None:
    """FAULTS 35: `run` given: only if it is the active one."""
    tab = await server.open()
    await tab.refused("not_running", "cancel", run="no-such-run")
    await tab.do("prompt", text=story.says("Work"))
    await story.call()
    run = tab.run
    await tab.refused("not_running", "cancel", run="no-such-run")
    await tab.do("cancel", run=run)
    assert (await tab.ended())["type"] == "run.cancelled"
    await tab.refused("not_running", "cancel", run=run)
    await tab.do("cancel")
    assert len(tab.all("run.cancelled")) == 1


async def test_suspend_and_resume_out_of_place(server: Server) -> None:
    tab = await server.open()
    await tab.refused("not_running", "suspend")
    await tab.refused("not_running", "resume")


async def test_decisions_about_nothing(server: Server) -> None:
    """No such approval, for each command that decides one; `already_*` needs one that was."""
    tab = await server.open()
    for kind in ("approve", "deny"):
        await tab.refused("no_such_approval", kind, run="r", call=["c"], digest="d")
    assert (await tab.send("settle", run="r", call=["c"], outcome="skip"))["type"] == "rejected"


# --- what is refused


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "prompt", "id": "x"},
        {"type": "prompt", "id": "x", "text": 5},
        {"type": "prompt", "id": "x", "text": None},
        {"type": "prompt", "id": "x", "text": ["a"]},
        {"type": "hint", "id": "x", "text": "a", "interrupt": "yes"},
        {"type": "withdraw", "id": "x"},
        {"type": "withdraw", "id": "x", "target": 1},
        {"type": "approve", "id": "x", "run": "r", "call": "not-a-list", "digest": "d"},
        {"type": "approve", "id": "x", "run": "r", "call": [1], "digest": "d"},
        {"type": "approve", "id": "x", "run": "r", "call": ["c"], "digest": "d", "arguments": [1]},
        {"type": "approve", "id": "x", "call": ["c"], "digest": "d"},
        {"type": "deny", "id": "x", "run": "r", "call": ["c"]},
        {"type": "settle", "id": "x", "run": "r", "call": ["c"], "outcome": "maybe"},
        {"type": "rename", "id": "x"},
        {"type": "rename", "id": "x", "title": {}},
        {"type": "revoke", "id": "x"},
    ],
    ids=lambda frame: json.dumps(frame)[:60],
)
async def test_wrong_fields_are_bad_commands(server: Server, frame: dict[str, Any]) -> None:
    """Each refused with `bad_command` and its own id, by socket and by HTTP; nothing is written."""
    tab = await server.open()
    head = tab.cursor
    answer = await refusal(tab, frame)
    assert (answer["id"], answer["code"]) == ("x", "bad_command"), answer
    response = await server.http.post(f"/api/conversations/{tab.attached['conversation']}/commands", json=frame)
    assert (response.status_code, code_of(response)) == (400, "bad_command")
    assert (await tab.ping())["head"] == head


async def test_unknown_types_are_told_and_harm_nothing(server: Server) -> None:
    """FAULTS 44: `unknown_type`; the connection stays."""
    tab = await server.open()
    answer = await refusal(tab, {"type": "teleport", "id": "t"})
    assert (answer["id"], answer["code"]) == ("t", "unknown_type")
    response = await server.command(tab.attached["conversation"], "teleport")
    assert (response.status_code, code_of(response)) == (400, "unknown_type")
    for _ in range(5):
        assert (await refusal(tab, {"type": "teleport", "id": "t"}))["code"] == "unknown_type"
    await tab.do("rename", title="Still here")


@pytest.mark.parametrize("frame", [{"id": "x"}, {"type": 5, "id": "x"}, {"type": None, "id": "x"}, {}])
async def test_a_type_that_is_none(server: Server, frame: dict[str, Any]) -> None:
    tab = await server.open()
    assert (await refusal(tab, frame))["code"] in ("bad_command", "unknown_type")


async def test_unknown_fields_are_ignored(server: Server) -> None:
    """FAULTS 58, 45: what a newer client adds, and names that JavaScript treats specially (FAULTS 47)."""
    tab = await server.open()
    fields: dict[str, Any] = {"title": "New", "later": {"a": [1]}, "__proto__": {"x": 1}, "constructor": None}
    await tab.do("rename", **fields)
    renamed = await tab.event("conversation.renamed", title="New")
    assert not {"later", "__proto__", "constructor"} & renamed.keys()


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"rename","id":"n","title":NaN}',
        '{"type":"rename","id":"n","title":Infinity}',
        '{"type":"rename","id":"n","title":"a"} trailing',
        "{'type':'rename'}",
        '{"type":"rename","id":"n","title":"a",}',
        "",
        "\ufeff{}",
        "[" * 100_000,
        '{"a":' * 50_000,
    ],
    ids=["nan", "infinity", "trailing", "quotes", "comma", "empty", "bom", "deep-arrays", "deep-objects"],
)
async def test_what_is_no_json_object_is_bad_json(server: Server, text: str) -> None:
    """FAULTS 43, 46, 47: strict JSON; depth costs no recursion; the connection survives one."""
    tab = await server.open()
    assert (await refusal(tab, text))["code"] in ("bad_json", "too_large")
    await tab.do("rename", title="Still here")


async def test_the_depth_of_json_is_bounded(server: Server) -> None:
    """§4: nesting 32 is taken, more is refused."""
    tab = await server.open()

    def nested(depth: int) -> str:
        deep = "[" * (depth - 1) + "]" * (depth - 1)
        return f'{{"type":"rename","id":"d{depth}","title":"t","x":{deep}}}'

    await tab.post(nested(32))
    await tab.frame("accepted", id="d32")
    assert (await refusal(tab, nested(33)))["code"] in ("bad_json", "bad_command", "too_large")


async def test_numbers_that_are_huge(server: Server) -> None:
    """FAULTS 47: in a field that nobody reads they harm nothing."""
    tab = await server.open()
    await tab.post(f'{{"type":"rename","id":"big","title":"t","x":1e400,"y":{"9" * 5000}}}')
    await tab.until(lambda c: [f for f in c.frames if f["type"] in ("accepted", "rejected")], "an answer")
    await tab.do("rename", title="Still here")


@pytest.mark.parametrize("text", ["bidi \u202e evil", "\u2028\u2029", "👩‍👩‍👧‍👦 é", "</script><!--", "\x1b[31m"])
async def test_any_text_comes_back_as_it_was(server: Server, story: Story, text: str) -> None:
    """FAULTS 47: bidi, separators, markup, escapes: kept, unharmed, in the event and in the archive's answer."""
    tab = await server.open()
    story.then(say("Yes."))
    await tab.do("prompt", text=story.says(text))
    assert (await tab.event("prompt.given"))["text"] == story.says(text)
    await tab.ended()
    assert story.calls[0].words == [story.says(text)]

    async def kept() -> Any:
        return (await server.get(f"/api/conversations/{tab.attached['conversation']}/messages"))["messages"]

    assert (await eventually(kept, "the archive"))[0]["text"] == story.says(text)


async def test_nul_harms_nothing(server: Server, story: Story) -> None:
    """FAULTS 47: kept or replaced, and the words around it are there."""
    tab = await server.open()
    story.then(say("Yes."))
    await tab.do("prompt", text=story.says("a\u0000b"))
    assert (await tab.event("prompt.given"))["text"].replace("\ufffd", "\u0000") == story.says("a\u0000b")
    await tab.ended()
    await settled(server, tab)


async def test_lone_surrogates_are_replaced_on_the_way_in(server: Server, story: Story) -> None:
    """FAULTS 42: half a pair in an escape never reaches the log, the model or another reader."""
    tab = await server.open()
    story.then(say("Yes."))
    await tab.post(f'{{"type":"prompt","id":"half","text":"half \\ud83d pair {story.says("")}"}}')
    given = await tab.event("prompt.given")
    assert given["text"].startswith("half ") and not any(0xD800 <= ord(c) < 0xE000 for c in given["text"])
    await tab.ended()
    await settled(server, tab)


async def test_empty_texts(server: Server) -> None:
    tab = await server.open()
    await tab.refused("text_empty", "prompt", text="")
    await tab.refused("text_empty", "hint", text="")
    response = await server.command(tab.attached["conversation"], "prompt", text="")
    assert (response.status_code, code_of(response)) == (400, "text_empty")


async def test_statuses_of_refusals_over_http(server: Server, story: Story) -> None:
    """§1.2, last lines: each code has its status."""
    tab = await server.open()
    conversation = tab.attached["conversation"]
    for status, code, kind, fields in (
        (404, "not_found", "withdraw", {"target": "never-was"}),
        (404, "no_such_approval", "deny", {"run": "r", "call": ["c"], "digest": "d"}),
        (409, "not_running", "cancel", {"run": "r"}),
        (413, "too_large", "prompt", {"text": "x" * 65_537}),
    ):
        answer = await server.command(conversation, kind, **fields)
        assert (answer.status_code, code_of(answer)) == (status, code), kind
        assert "Traceback" not in answer.text
    raw = await server.http.post(f"/api/conversations/{conversation}/commands", content=b"{nonsense")
    assert (raw.status_code, code_of(raw)) == (400, "bad_json")
    answer = await server.command(conversation, "rename", "ok", title="New")
    assert answer.status_code == 202 and answer.json().keys() == {"id", "seq", "duplicate"}
