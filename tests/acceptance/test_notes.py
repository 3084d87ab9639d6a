"""SEMANTICS.md §8, rows 003-9, 003-10, 003-11, 003-12, 003-13, 003-14 and 003-15 of ACCEPTANCE.md.

003-2, 003-3 and 003-4 are here as far as notes carry them. What a summary would lose is
kept word for word outside the context, and is before the model with every request.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from .conftest import Launch
from .harness import Client, Server, fresh, settled
from .history import Json
from .parts import parts
from .stub import Call, Story, Use, say, text_of, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

SERVED = ("tests.acceptance.keepers:agents",)
KINDS = ("progress", "knowledge", "environment", "decision")
SAID = {
    "progress": "Half of the pages are translated",
    "knowledge": "Trying port 8080 failed: it is taken\n\n  try 8081 *instead*",
    "environment": "README.md was changed; the build's output is in out/é漢.txt",
    "decision": "SQLite and not PostgreSQL, because there is one server",
}


def conversation_of(tab: Client) -> str:
    return str(tab.attached["conversation"])


async def state_of(server: Server, tab: Client) -> Json:
    """`notes{}` of the conversation."""
    return dict((await server.get(f"/api/conversations/{conversation_of(tab)}"))["notes"])


async def notes_of(server: Server, tab: Client) -> list[Json]:
    return list((await server.get(f"/api/conversations/{conversation_of(tab)}/notes"))["notes"])


def system(call: Call) -> str:
    assert [message["role"] for message in call.messages].count("system") == 1
    return text_of(call.messages[0])


def saved(kind: str, text: str = "", id: str = "") -> Use:
    return Use("save_note", {"kind": kind, "text": text or SAID[kind]}, id=id or f"note-{kind}")


async def test_003_9_a_new_conversation_s_state(server: Server) -> None:
    """003-9."""
    tab = await server.open(agent="keeper")
    assert await state_of(server, tab) == {"completed": [], "current_task": None, "notes": []}
    assert await notes_of(server, tab) == []


async def test_003_10_a_checkpoint_outlives_kill_9(launch: Launch, story: Story) -> None:
    """003-10: task, result and an ISO time, whole, after the process was killed right behind the call."""
    server = await launch(agents=SERVED)
    first = {"task": "Find places", "result": "Three found", "next": "Compare them"}
    story.then(use(Use("checkpoint", first, id="k1")))
    tab = await server.open(agent="keeper")
    began = datetime.now(UTC)
    await tab.do("prompt", text=story.says("Order dinner"))
    await tab.event("tool.returned", call="k1")
    await server.kill()
    await server.start()
    state = await state_of(server, tab)
    [done] = state["completed"]
    assert done.keys() == {"task", "result", "timestamp"}
    assert (done["task"], done["result"]) == ("Find places", "Three found")
    at = datetime.fromisoformat(done["timestamp"])
    assert at.utcoffset() is not None and abs((at - began).total_seconds()) < 60
    assert (state["current_task"], state["notes"]) == ("Compare them", [])
    back = await server.again(tab)
    call = await story.call()
    story.then(say("Done."))
    await call.use(Use("checkpoint", {"task": "Compare them", "result": "Da Enzo"}, id="k2"))
    await call.end("tool_calls")
    await back.ended()
    state = await state_of(server, back)
    assert [done["task"] for done in state["completed"]] == ["Find places", "Compare them"]
    assert state["current_task"] is None
    await settled(server, back)


@pytest.mark.parametrize("name", ["learn", "learn_sync"])
async def test_003_11_saved_is_saved_when_the_call_returns(launch: Launch, story: Story, name: str) -> None:
    """003-11: `kill -9` at once after the note's call has returned loses nothing; the repeated tool doubles nothing."""
    server = await launch(agents=SERVED)
    line, gate = fresh("line"), fresh("gate")
    story.then(use(Use(name, {"line": line, "gate": gate}, id="k1")))
    tab = await server.open(agent="keeper")
    await tab.do("prompt", text=story.says("Learn"))
    await server.wrote(line, "noted")
    await server.kill()
    story.then(say("Done."))
    await server.start()
    [note] = await notes_of(server, tab)
    assert (note["kind"], note["text"], note["call"]) == ("knowledge", f"learned {line}", "k1")
    await server.wrote(line, "noted", times=2)
    server.let(gate)
    back = await server.again(tab)
    await back.ended()
    assert len(await notes_of(server, back)) == len(back.all("note.saved")) == 1
    assert f"<note>learned {line}</note>" in system(story.calls[-1])
    await settled(server, back)


async def test_003_12_progress_done_and_next(launch: Launch, story: Story) -> None:
    """003-12: a query gives what is done and what is next; both are before the model again after a restart."""
    server = await launch(agents=SERVED)
    story.then(
        use(Use("checkpoint", {"task": "Read", "result": "40 pages", "next": "Write"}, id="k1"), saved("progress")),
        say("So far."),
    )
    tab = await server.open(agent="keeper")
    await tab.do("prompt", text=story.says("Work"))
    await tab.ended()
    await server.restart()
    state = await state_of(server, tab)
    assert [(done["task"], done["result"]) for done in state["completed"]] == [("Read", "40 pages")]
    assert state["current_task"] == "Write" and [note["text"] for note in state["notes"]] == [SAID["progress"]]
    story.then(say("On it."))
    back = await server.again(tab)
    await back.do("prompt", text=story.says("Go on"))
    await back.ended(2)
    told = system(story.calls[-1])
    assert "<note>Done: Read\nResult: 40 pages\nNext: Write</note>" in told and SAID["progress"] in told


async def test_003_13_003_14_003_15_every_kind_is_put_back(launch: Launch, story: Story) -> None:
    """003-13, 003-14, 003-15, 003-3, 003-4: learned, changed, decided and why, what failed: word for word, also after a
    restart and for a sub-agent that has none of the conversation's messages."""
    server = await launch(agents=SERVED)
    story.brain = parts(
        master=[
            use(*(saved(kind) for kind in KINDS)),
            use(Use("apprentice", {"prompt": story.says("Translate the rest")}, id="sub")),
            say("All done."),
            say("Still known."),
        ],
        apprentice=[use(saved("knowledge", "The glossary is wrong", "sub-note")), say("Translated.")],
    )
    tab = await server.open(agent="master")
    await tab.do("prompt", text=story.says("Translate"))
    await tab.ended()
    first, *others = story.calls
    assert system(first) == "You are master."
    for call in others:
        assert all(f"<note>{text}</note>" in system(call) for text in SAID.values())
    apprentice = [call for call in others if "apprentice" in system(call).split("\n")[0]]
    assert len(apprentice) == 2 and "glossary" not in system(apprentice[0]) and "glossary" in system(apprentice[1])
    assert "glossary" in system(story.calls[-1]), "a note of a sub-agent is the conversation's"
    [note] = [note for note in tab.all("note.saved") if note.get("path")]
    assert (note["path"], note["call"]) == (["sub"], "sub-note")
    await server.restart()
    back = await server.again(tab)
    await back.do("prompt", text=story.says("Do you still know?"))
    await back.ended(2)
    assert all(f"<note>{text}</note>" in system(story.calls[-1]) for text in SAID.values())
    state = await state_of(server, back)
    assert {note["kind"]: note["text"] for note in state["notes"]} == {**SAID, "knowledge": "The glossary is wrong"}
    await settled(server, back)


async def test_003_14_the_environment_with_references(server: Server, story: Story) -> None:
    """003-14: a note names where an output is that is too large for the context; there are its original bytes."""
    tab = await server.open(agent="keeper")
    story.then(use(Use("survey", {"size": 160_000}, id="k1")), say("Surveyed."))
    await tab.do("prompt", text=story.says("Survey"))
    await tab.ended()
    [note] = (await state_of(server, tab))["notes"]
    reference = note["text"].rpartition("kept as ")[2]
    assert note["kind"] == "environment" and f"kept as {reference}</note>" in system(story.calls[-1])
    kept = await server.http.get(f"/api/conversations/{conversation_of(tab)}/kept/{reference}")
    assert kept.text == "0123456789abcdef" * 10_000


async def test_003_2_what_was_noted_first_is_told_in_the_last_request(server: Server, story: Story) -> None:
    """003-2: a fact of the first run is in the request of the 40th, once and not once per run."""
    tab = await server.open(agent="keeper")
    story.then(use(saved("knowledge")))
    story.brain = lambda _: say("Yes.")
    for number in range(1, 41):
        await tab.do("prompt", text=story.says(f"Question {number}"))
        await tab.ended(number)
    assert system(story.calls[-1]).count(f"<note>{SAID['knowledge']}</note>") == 1


# --- over the wire


async def test_a_client_notes_by_socket_and_by_http(server: Server, story: Story) -> None:
    """§8, PROTOCOL §1.2: by the application, in any state; receipts, idempotent, visible to all, nothing is started."""
    tab = await server.open(agent="keeper")
    receipt = await tab.do("note", "n-1", kind="decision", text=SAID["decision"])
    assert await tab.do("note", "n-1", kind="knowledge", text="other") == {**receipt, "duplicate": True}
    answer = await server.command(conversation_of(tab), "note", "n-2", kind="environment", text=SAID["environment"])
    assert answer.status_code == 202, answer.text
    event = await tab.event("note.saved", cause="n-2")
    assert (event["note"], event["kind"], event["text"]) == ("n-2", "environment", SAID["environment"])
    assert event["by"] and "run" not in event
    assert (await server.get(f"/api/conversations/{conversation_of(tab)}"))["status"] == "idle"
    assert not tab.all("run.started") and story.calls == []
    listed = await notes_of(server, tab)
    assert [note["note"] for note in listed] == ["n-1", "n-2"]
    assert listed[0] == {
        "note": "n-1", "kind": "decision", "text": SAID["decision"], "at": tab.all("note.saved")[0]["at"],
        "by": event["by"],
    }  # fmt: skip
    story.then(say("I know."))
    await tab.do("prompt", text=story.says("Why SQLite?"))
    await tab.ended()
    assert all(f"<note>{SAID[kind]}</note>" in system(story.calls[0]) for kind in ("decision", "environment"))
    await settled(server, tab)


async def test_a_note_neither_disturbs_nor_resumes_a_run(server: Server, story: Story) -> None:
    """While the model speaks the request stays what it was; while a person is waited for the run waits on."""
    tab = await server.open(agent="keeper")
    await tab.do("prompt", text=story.says("Reserve"))
    call = await story.call()
    await call.text("Let me ")
    await tab.shows("Let me ")
    await tab.do("note", kind="decision", text="By the window")
    await call.text("see")
    await call.use(Use("reserve", {"place": fresh("place"), "people": 2}, id="book"))
    await call.end("tool_calls")
    await tab.event("run.suspended")
    await tab.do("note", kind="decision", text="And not by the door")
    assert (await server.get(f"/api/conversations/{conversation_of(tab)}"))["status"] == "waiting"
    assert len(story.calls) == 1 and not tab.all("run.resumed")
    asked = tab.all("approval.requested")[0]
    story.then(say("Reserved."))
    await tab.do("deny", run=tab.run, call=["book"], digest=asked["digest"])
    await tab.ended()
    assert "By the window" in system(story.calls[-1]) and "by the door" in system(story.calls[-1])
    await settled(server, tab)


@pytest.mark.parametrize(
    ("fields", "code", "status"),
    [
        ({"kind": "decision", "text": " "}, "text_empty", 400),
        ({"kind": "decision", "text": "x" * 4_001}, "too_large", 413),
        ({"kind": "todo", "text": "x"}, "bad_command", 400),
        ({"kind": "decision"}, "bad_command", 400),
    ],
    ids=["empty", "too-large", "no-kind", "no-text"],
)
async def test_a_note_that_is_refused(server: Server, fields: dict[str, Any], code: str, status: int) -> None:
    """Validated and bounded; nothing changed."""
    tab = await server.open(agent="keeper")
    await tab.refused(code, "note", **fields)
    answer = await server.command(conversation_of(tab), "note", **fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert await notes_of(server, tab) == []


async def test_so_many_and_no_more(server: Server) -> None:
    """P8: the bound is in `attached.limits`, and reaching it is a clear refusal."""
    tab = await server.open(agent="keeper")
    most = tab.attached["limits"]["notes"]
    assert (most, tab.attached["limits"]["note_chars"]) == (200, 4_000)
    for number in range(most):
        await tab.do("note", f"n-{number}", kind="progress", text=f"{number}")
    refused = await tab.refused("queue_full", "note", kind="progress", text="one more")
    assert str(most) in refused["message"]
    assert (await tab.do("note", "n-0", kind="progress", text="again"))["duplicate"] is True
    assert len(await notes_of(server, tab)) == most


async def test_no_notes_of_what_is_not_there(server: Server) -> None:
    await server.get("/api/conversations/nothing/notes", 404)
