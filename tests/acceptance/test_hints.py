"""SEMANTICS.md §3: a hint's fate in every state of a run. The rows on sub-agents and compaction need later issues."""

from __future__ import annotations

import pytest

from .conftest import Launch
from .harness import Client, Server, fresh, settled
from .stub import Call, Story, Use, refuse, say, text_of, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

HINT = "Look in the drawer"


def told(call: Call) -> list[tuple[str, str]]:
    """What the model is given, less the instructions: role and text."""
    return [(m["role"], text_of(m)) for m in call.messages if m["role"] not in ("system", "developer")]


async def test_streaming_then_tools(server: Server, story: Story) -> None:
    """Not cut off; given after all results of the batch, before the next model call."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Work"))
    call = await story.call()
    await call.text("I am ")
    await tab.shows("I am ")
    await tab.do("hint", "h", text=HINT)
    assert not call.gone.is_set()
    await call.text("working.")
    await call.use(Use("tick", {"number": 1}, id="k1"), Use("tick", {"number": 2}, id="k2"))
    await call.end("tool_calls")
    call = await story.call()
    said = told(call)
    assert said[1:] == [("assistant", "I am working."), ("tool", "tick 1"), ("tool", "tick 2"), ("user", HINT)]
    assert (await tab.event("hint.applied", message="h"))["step"] == 2
    await call.end()
    await tab.ended()
    order = [e["type"] for e in tab.events if e["type"] in ("tool.returned", "hint.applied", "step.started")]
    assert order[:3] == ["step.started", "tool.returned", "tool.returned"]
    assert sorted(order[3:]) == ["hint.applied", "step.started"]
    await settled(server, tab)


async def test_streaming_the_final_answer(server: Server, story: Story) -> None:
    """One more step in the same run (FAULTS 64)."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Answer"))
    call = await story.call()
    await call.text("Final.")
    await tab.shows("Final.")
    await tab.do("hint", "h", text=HINT)
    await call.end()
    call = await story.call()
    assert told(call) == [("user", story.says("Answer")), ("assistant", "Final."), ("user", HINT)]
    await call.text("Even more final.")
    await call.end()
    await tab.ended()
    assert len(tab.all("run.started")) == 1
    assert tab.all("hint.applied", message="h")[0]["step"] == 2
    await settled(server, tab)


async def test_at_the_step_limit_it_is_carried(launch: Launch, story: Story) -> None:
    """The run ends at its limit; the hint starts the next one, with its own id as the message."""
    server = await launch(HOLDFAST_STEPS_MAX="1")
    tab = await server.open()
    await tab.do("prompt", text=story.says("Answer"))
    call = await story.call()
    await call.text("Final.")
    await tab.shows("Final.")
    await tab.do("hint", "h1", text=HINT)
    await tab.do("hint", "h2", text="And under the bed")
    story.then(say("Found."))
    await call.end()
    await tab.ended(2)
    runs = tab.all("run.started")
    assert runs[1]["message"] == "h1"
    carried = tab.all("hint.carried")
    assert [(event["message"], event["into"]) for event in carried] == [("h1", runs[1]["run"]), ("h2", runs[1]["run"])]
    assert story.calls[1].words[-2:] == [HINT, "And under the bed"]
    await settled(server, tab)


async def test_a_tool_is_running(server: Server, story: Story) -> None:
    """It waits; the tool is not touched (FAULTS 65, 67)."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("once", {"line": line, "gate": line}, id="k1"), Use("tick", {"number": 1}, id="k2")))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    await tab.do("hint", "h", text=HINT)
    await tab.event("tool.returned", call="k2")
    assert tab.all("hint.applied") == []
    server.let(line)
    call = await story.call()
    assert told(call) == [
        ("user", story.says("Work")),
        ("assistant", ""),
        ("tool", f"{line} is done"),
        ("tool", "tick 1"),
        ("user", HINT),
    ]
    await call.end()
    await tab.ended()
    await settled(server, tab)


async def test_interrupting_a_tool(server: Server, story: Story) -> None:
    """The running tool that allows it is cancelled and has a result, then the hint is given."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("once", {"line": line, "gate": line}, id="k1")))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    await tab.do("hint", "h", text=HINT, interrupt=True)
    assert (await tab.event("hint.given"))["interrupt"] is True
    call = await story.call(5)
    [failed] = tab.all("tool.failed", call="k1")
    assert failed["error"]["kind"] in ("cancelled", "in_doubt")
    assert call.words[-1] == HINT and list(call.results) == ["k1"]
    assert call.messages[-1]["role"] == "user"
    await call.end()
    await tab.ended()
    assert [entry.split()[1] for entry in server.ledger(line)] == ["begin"]
    await settled(server, tab)


async def test_interrupting_skips_what_has_not_started(launch: Launch, story: Story) -> None:
    """Calls without `tool.started` are `skipped`, each with its result."""
    server = await launch(HOLDFAST_TOOLS_PARALLEL="1")
    line, never = fresh("line"), fresh("line")
    tab = await server.open()
    story.then(use(Use("once", {"line": line, "gate": line}, id="k1"), Use("once", {"line": never}, id="k2")))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    await tab.do("hint", text=HINT, interrupt=True)
    call = await story.call(5)
    assert tab.all("tool.failed", call="k2")[0]["error"]["kind"] == "skipped"
    assert tab.all("tool.started", call="k2") == [] and server.ledger(never) == []
    assert set(call.results) == {"k1", "k2"}
    await call.end()
    await tab.ended()
    await settled(server, tab)


async def test_interrupting_a_tool_that_does_not_allow_it(server: Server, story: Story) -> None:
    """It waits like any hint."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("patient", {"line": line, "gate": line}, id="k1")))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    await tab.do("hint", text=HINT, interrupt=True)
    await tab.do("rename", title="A later command, so that the hint has been decided")
    assert tab.all("tool.failed") == [] and len(story.calls) == 1
    server.let(line)
    call = await story.call()
    assert call.results == {"k1": f"{line} is done"} and call.words[-1] == HINT
    await call.end()
    await tab.ended()
    await settled(server, tab)


async def waiting(server: Server, story: Story) -> tuple[Client, str]:
    """A run that waits for an approval, and the digest of its call `book`."""
    tab = await server.open()
    story.then(use(Use("reserve", {"place": fresh("place"), "people": 2}, id="book")))
    await tab.do("prompt", text=story.says("Book"))
    asked = await tab.event("approval.requested", call="book")
    await tab.event("run.suspended", reason="approval")
    return tab, asked["digest"]


@pytest.mark.parametrize("interrupt", [False, True])
async def test_waiting_for_a_person(server: Server, story: Story, interrupt: bool) -> None:
    """Kept and shown, decides nothing, delivered together with the result once decided."""
    tab, digest = await waiting(server, story)
    await tab.do("hint", "h", text=HINT, interrupt=interrupt)
    await tab.do("rename", title="A later command")
    assert tab.all("approval.decided") == tab.all("hint.applied") == []
    assert [
        q["message"] for q in (await server.get(f"/api/conversations/{tab.attached['conversation']}"))["queued"]
    ] == ["h"]
    await tab.do("approve", run=tab.run, call=["book"], digest=digest)
    call = await story.call()
    assert list(call.results) == ["book"] and call.words[-1] == HINT
    await call.end()
    await tab.ended()
    await settled(server, tab)


async def test_interrupting_keeps_open_approvals_open(server: Server, story: Story) -> None:
    """A running tool is cancelled, the call that waits for a person stays open, the hint waits for both."""
    line = fresh("line")
    tab = await server.open()
    story.then(
        use(
            Use("once", {"line": line, "gate": line}, id="k1"),
            Use("reserve", {"place": fresh("p"), "people": 2}, id="book"),
        )
    )
    await tab.do("prompt", text=story.says("Both"))
    asked = await tab.event("approval.requested", call="book")
    await server.wrote(line)
    await tab.do("hint", text=HINT, interrupt=True)
    await tab.event("tool.failed", call="k1")
    await tab.event("run.suspended", reason="approval")
    assert tab.all("hint.applied") == tab.all("approval.decided") == []
    await tab.do("deny", run=tab.run, call=["book"], digest=asked["digest"])
    call = await story.call()
    assert set(call.results) == {"k1", "book"} and call.words[-1] == HINT
    await call.end()
    await tab.ended()
    await settled(server, tab)


async def test_waiting_to_retry_the_provider(server: Server, story: Story) -> None:
    """Given with the next attempt."""
    tab = await server.open()
    story.then(refuse(429, retry_after="1"))
    await tab.do("prompt", text=story.says("Answer"))
    await tab.event("model.failed")
    await tab.do("hint", "h", text=HINT)
    call = await story.call()
    assert call.words == [story.says("Answer"), HINT]
    await call.end()
    await tab.ended()
    assert tab.all("hint.applied", message="h")
    await settled(server, tab)


async def test_suspended_by_retry(launch: Launch, story: Story) -> None:
    """Kept; does not resume."""
    server = await launch(HOLDFAST_RETRY_SECONDS="1")
    story.brain = lambda _: refuse(503)
    tab = await server.open()
    await tab.do("prompt", text=story.says("Answer"))
    await tab.event("run.suspended", reason="retry", within=20)
    tried = len(story.calls)
    await tab.do("hint", "h", text=HINT)
    await tab.do("rename", title="A later command")
    assert tab.all("run.resumed") == tab.all("hint.applied") == [] and len(story.calls) == tried
    await tab.do("cancel")
    await tab.event("hint.dropped", message="h", reason="cancelled")
    await tab.ended()
    await settled(server, tab)


async def test_suspended_by_request(server: Server, story: Story) -> None:
    """Kept; resumes the run. Needs `suspend`, which the first issues refuse with a code."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("once", {"line": line, "gate": line})))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    answer = await tab.send("suspend", run=tab.run)
    server.let(line)
    if answer["type"] == "rejected":
        await (await story.call()).end()
        await tab.ended()
        pytest.skip(f"suspend is refused: {answer['code']}")
    await tab.event("run.suspended", reason="request")
    await tab.do("hint", "h", text=HINT)
    call = await story.call()
    assert call.words[-1] == HINT
    await call.end()
    await tab.ended()
    await settled(server, tab)


async def test_idle_it_is_a_prompt(server: Server, story: Story) -> None:
    """Decided by the owner in one step: a run starts with it."""
    tab = await server.open()
    story.then(say("Yes."))
    await tab.do("hint", "h", text=story.says(HINT))
    await tab.ended()
    assert tab.all("run.started")[0]["message"] == "h"
    await settled(server, tab)


async def test_hint_first_then_cancel(server: Server, story: Story) -> None:
    """Order of acceptance: the hint is dropped as `cancelled`."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Work"))
    await story.call()
    await tab.post({"type": "hint", "id": "h", "text": HINT})
    await tab.post({"type": "cancel", "id": "c"})
    await tab.event("hint.dropped", message="h", reason="cancelled")
    assert (await tab.ended())["type"] == "run.cancelled"
    assert len(tab.all("run.started")) == 1
    await settled(server, tab)


async def test_cancel_first_then_hint(server: Server, story: Story) -> None:
    """It starts a new run."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Work"))
    await story.call()
    await tab.post({"type": "cancel", "id": "c"})
    await tab.post({"type": "hint", "id": "h", "text": HINT})
    assert (await tab.ended())["type"] == "run.cancelled"
    call = await story.call()
    assert call.words[-1] == HINT
    await call.end()
    assert (await tab.ended(2))["type"] == "run.completed"
    assert tab.all("run.started")[1]["message"] == "h"
    await settled(server, tab)


@pytest.mark.parametrize("how", ["cancel", "fail"])
async def test_a_stop_drops_hints_and_queued_prompts(server: Server, story: Story, how: str) -> None:
    """Cancelled or failed: all undelivered words are dropped with the run, and none of them starts another."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Work"))
    call = await story.call()
    for number in range(2):
        await tab.do("hint", f"h-{number}", text=f"Hint {number}")
        await tab.do("prompt", f"p-{number}", text=f"Prompt {number}")
    if how == "cancel":
        await tab.do("cancel")
    else:
        await call.refuse(400, "no")
    assert (await tab.ended())["type"] == {"cancel": "run.cancelled", "fail": "run.failed"}[how]
    assert [event["message"] for event in tab.all("hint.dropped")] == ["h-0", "h-1"]
    assert [event["message"] for event in tab.all("prompt.dropped")] == ["p-0", "p-1"]
    assert all(event["reason"] for event in tab.all("hint.dropped") + tab.all("prompt.dropped"))
    item = await server.get(f"/api/conversations/{tab.attached['conversation']}")
    assert (item["status"], item["queued"]) == ("idle", [])
    assert len(tab.all("run.started")) == 1
    await settled(server, tab)


async def test_order_is_the_order_of_acceptance(server: Server, story: Story) -> None:
    """Ten hints from two tabs, delivered as they were accepted."""
    line = fresh("line")
    tab = await server.open()
    other = await server.attach(tab.attached["conversation"])
    story.then(use(Use("once", {"line": line, "gate": line})))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    for number in range(10):
        await (tab, other)[number % 2].post({"type": "hint", "id": f"h-{number}", "text": f"Hint {number}"})
    given = await tab.count("hint.given", 10)
    server.let(line)
    call = await story.call()
    assert call.words[1:] == [event["text"] for event in given]
    assert [event["message"] for event in tab.all("hint.applied")] == [event["message"] for event in given]
    await call.end()
    await tab.ended()
    await settled(server, tab)


async def test_a_hint_survives_a_crash(launch: Launch, story: Story) -> None:
    """Durable before anything else, with exactly one outcome across the crash."""
    server = await launch()
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("safe", {"line": line, "gate": line}, id="k1")))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    receipt = await tab.do("hint", "h", text=HINT)
    await server.restart()
    tab = await server.again(tab)
    assert (await tab.do("hint", "h", text=HINT)) == {**receipt, "duplicate": True}
    server.let(line)
    call = await story.call()
    assert call.words[-1] == HINT and call.words.count(HINT) == 1
    await call.end()
    await tab.ended()
    assert len(tab.all("hint.applied", message="h")) == 1
    await settled(server, tab)
