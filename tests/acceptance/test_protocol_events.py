"""PROTOCOL.md §3: the envelope, superseding, promises that need no kill (those are in test_recovery and tests/kill)."""

from __future__ import annotations

import asyncio

import pytest

from .harness import Server, fresh, settled
from .history import STREAMED, Json
from .stub import Story, Stub, Use, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]


async def test_the_envelope(server: Server, story: Story) -> None:
    """`seq`, `at`, `type` on all; `run` on every event of a run; `cause` on a command's first event; no `path`."""
    tab = await server.open()
    story.then(use(Use("tick", {"number": 1}), text="One."), say("Two."))
    await tab.do("prompt", "p", text=story.says("Go"))
    await tab.ended()
    log = [record.event for record in await settled(server, tab)]
    assert all(isinstance(e["seq"], int) and isinstance(e["at"], int) and e["at"] > 1_600_000_000_000 for e in log)
    assert all("path" not in event for event in log)
    of_run = ("run.", "step.", "model.", "tool.", "approval.")
    assert all(event["run"] == tab.run for event in log if event["type"].startswith(of_run))
    assert [event["type"] for event in log if event.get("cause") == "p"] == ["prompt.given"]


async def test_the_fields_of_each_event_of_a_run(server: Server, story: Story) -> None:
    """§3.1, the types that a plain run shows, with every field that is not optional."""
    fields = {
        "conversation.created": {"agent", "title", "owner"},
        "prompt.given": {"message", "text", "author"},
        "run.started": {"agent", "message"},
        "step.started": {"step", "attempt", "model"},
        "text.streamed": {"step", "attempt", "offset", "text"},
        "reasoning.streamed": {"step", "attempt", "offset", "text"},
        "model.replied": {"step", "attempt", "message", "text", "calls", "finish", "usage", "reasoning"},
        "tool.started": {"call", "tool", "arguments"},
        "tool.progressed": {"call", "text", "fraction"},
        "tool.returned": {"call", "result", "ms"},
        "run.completed": {"message", "usage", "steps", "ms"},
        "archive.flushed": {"through"},
    }
    line = fresh("gate")
    tab = await server.open()
    await tab.do("prompt", text=story.says("Go"))
    call = await story.call()
    await call.reasoning("Hm.")
    await call.text("One.")
    await tab.shows("One.")
    await call.use(Use("phases", {"gates": [line]}, id="k"))
    await call.end("tool_calls")
    await tab.event("tool.progressed", call="k")
    server.let(line)
    call = await story.call()
    await call.text("Done.")
    await call.end()
    await tab.flushed()
    seen: dict[str, Json] = {}
    for event in tab.events:
        if event["type"] != "model.replied" or event["step"] == 1:
            seen.setdefault(event["type"], event)
    for kind, needed in fields.items():
        assert needed <= seen[kind].keys(), (kind, seen[kind])
    replied = tab.all("model.replied")[-1]
    assert {"input": 11, "output": 7}.items() <= replied["usage"].items() and replied["finish"] == "stop"
    ended = tab.all("run.completed")[0]
    assert (ended["steps"], ended["usage"]["input"], ended["usage"]["output"]) == (2, 22, 14)
    assert ended["message"] == replied["message"]


async def test_pieces_append_by_their_offsets_in_code_points(server: Server, story: Story) -> None:
    """§3.1: offsets count Unicode code points, apart for text and reasoning (the Follower checks that they fit)."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Speak"))
    call = await story.call()
    shown = ""
    for piece in ("é", "👩‍👩‍👧", "\u2028x", "ß" * 50, "𝄞"):
        await call.reasoning(piece)
        await call.text(piece)
        shown += piece
        await tab.shows(shown)
    await tab.until(lambda c: c.text("reasoning.streamed") == shown)
    await call.end()
    await tab.ended()
    [replied] = tab.all("model.replied")
    assert (replied["text"], replied["reasoning"]) == (shown, shown)
    await settled(server, tab)


async def test_replays_hold_nothing_superseded(server: Server, story: Story) -> None:
    """§3.3: no pieces of ended attempts, no progress of ended calls; those of what is still open are there."""
    gate, line = fresh("gate"), fresh("line")
    tab = await server.open()
    conversation = tab.attached["conversation"]
    story.then(use(Use("phases", {"gates": [gate]}, id="k1"), Use("phases", {"gates": [line]}, id="k2"), text="Both."))
    await tab.do("prompt", text=story.says("Go"))
    await tab.event("tool.progressed", call="k1")
    await tab.event("tool.progressed", call="k2")
    server.let(gate)
    await tab.event("tool.returned", call="k1")
    log = [record.event for record in await server.replay(conversation)]
    assert not [event for event in log if event["type"] in STREAMED]
    assert [event["call"] for event in log if event["type"] == "tool.progressed"] == ["k2"]
    server.let(line)
    call = await story.call()
    await call.text("Half")
    await tab.shows("Half")
    assert [record.type for record in await server.replay(conversation)][-1] == "text.streamed"
    await call.end()
    await tab.ended()
    await settled(server, tab)


async def test_status_by_event(server: Server, story: Story) -> None:
    """§3.1, last line: running, waiting, running again, idle: in `attached`, in the item, in the run."""
    tab = await server.open()
    conversation = tab.attached["conversation"]

    async def status() -> str:
        other = await server.attach(conversation)
        await other.frame("live")
        item = await server.get(f"/api/conversations/{conversation}")
        assert other.attached["status"] == item["status"]
        return str(item["status"])

    story.then(use(Use("reserve", {"place": fresh("place"), "people": 1}, id="book")))
    assert await status() == "idle"
    await tab.do("prompt", text=story.says("Book"))
    asked = await tab.event("approval.requested")
    await tab.event("run.suspended", reason="approval")
    assert await status() == "waiting"
    await tab.do("deny", run=tab.run, call=["book"], digest=asked["digest"])
    await tab.event("run.resumed")
    call = await story.call()
    assert await status() == "running"
    await call.end()
    await tab.ended()
    assert await status() == "idle"


async def test_what_closes_a_run_comes_before_its_end(server: Server, story: Story) -> None:
    """§3.1: the interruption of the attempt, the drops, the failures of calls precede the terminal event at once."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Go"))
    call = await story.call()
    await call.text("Half")
    await tab.shows("Half")
    await tab.do("hint", "h", text="Wait")
    await tab.do("prompt", "p", text="Next")
    await tab.do("cancel")
    ended = await tab.ended()
    closing = [e for e in tab.events if e["seq"] <= ended["seq"]][-4:]
    assert {e["type"] for e in closing[:-1]} == {"model.interrupted", "hint.dropped", "prompt.dropped"}
    assert [e["seq"] for e in closing] == list(range(ended["seq"] - 3, ended["seq"] + 1))
    await settled(server, tab)


async def test_all_readers_see_one_order(server: Server, story: Story) -> None:
    """P2: three readers, commands from all of them at once: the same surviving events in the same order."""
    tabs = [await server.open()]
    tabs += [await server.attach(tabs[0].attached["conversation"]) for _ in range(2)]
    await tabs[0].do("prompt", text=story.says("Go"))
    call = await story.call()

    async def shuffle(number: int) -> None:
        for title in range(10):
            await tabs[number].do("rename", title=f"{number}-{title}")
            await call.text(f"{number}{title} ")

    await asyncio.gather(*(shuffle(number) for number in range(3)))
    await call.end()
    logs = []
    for tab in tabs:
        await tab.flushed()
        logs.append([record.text for record in await settled(server, tab)])
    assert logs[0] == logs[1] == logs[2]


async def test_unrelated_conversations_do_not_mix(server: Server, stub: Stub) -> None:
    """Isolation: twenty conversations at once: each log holds its own words only, each seq begins at 1."""
    stories = [stub.story() for _ in range(20)]
    for number, story in enumerate(stories):
        story.then(say(f"This is {number}."))
    made = await asyncio.gather(*(server.create(prompt=s.says(f"Number {n}")) for n, s in enumerate(stories)))
    for number, one in enumerate(made):
        assert (await server.outcome(one["run"]))["result"] == f"This is {number}."
        log = await server.replay(one["conversation"])
        assert log[0].seq == 1 and {r.event["run"] for r in log if "run" in r.event} == {one["run"]}
