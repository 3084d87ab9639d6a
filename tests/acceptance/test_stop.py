"""SEMANTICS.md §10 and P7: a stop stops: from anywhere, in every state, once, for good."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from .conftest import Launch
from .harness import Client, Server, fresh, settled
from .history import RUN_ENDS
from .stub import Story, Use, refuse, say, use

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]


async def is_over(server: Server, tab: Client, story: Story) -> None:
    """Exactly one terminal event, `run.cancelled`; afterwards no event of the run and no model call (P7)."""
    ended = await tab.ended()
    assert ended["type"] == "run.cancelled" and ended["by"]
    asked = len(story.calls)
    await tab.do("rename", title="A later command")
    await settled(server, tab)
    assert [event["type"] for event in tab.events if event["type"] in RUN_ENDS] == ["run.cancelled"]
    assert not [event for event in tab.events if event["seq"] > ended["seq"] and event.get("run") == ended["run"]]
    assert len(story.calls) == asked
    assert (await server.get(f"/api/conversations/{tab.attached['conversation']}"))["status"] == "idle"


async def test_before_the_first_token(server: Server, story: Story) -> None:
    """FAULTS 69: the provider's connection is closed within a second; nothing had been streamed."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Work"))
    call = await story.call()
    await tab.do("cancel")
    await call.aborted(1)
    await is_over(server, tab, story)
    assert len(tab.all("model.failed") + tab.all("model.interrupted")) == 1


async def test_in_the_middle_of_the_text(server: Server, story: Story) -> None:
    """The partial text is kept, byte for byte what readers saw."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Work"))
    call = await story.call()
    await call.text("Half of ", "the truth ☃")
    await tab.shows("Half of the truth ☃")
    await tab.do("cancel")
    await call.aborted(1)
    await is_over(server, tab, story)
    [kept] = tab.all("model.interrupted")
    assert (kept["reason"], kept["text"]) == ("cancel", "Half of the truth ☃")


async def test_the_partial_stays_before_the_next_words(server: Server, story: Story) -> None:
    """§1: what the person stopped stays in the history, closed, before the person's words."""
    tab = await server.open()
    await tab.do("prompt", text=story.says("Work"))
    call = await story.call()
    await call.text("Half of the truth")
    await tab.shows("Half of the truth")
    await tab.do("cancel")
    await tab.ended()
    await tab.do("prompt", text=story.says("And now?"))
    call = await story.call()
    said = [(m["role"], m["content"]) for m in call.messages if m["role"] in ("user", "assistant")]
    assert [role for role, _ in said] == ["user", "assistant", "user"]
    assert said[1][1].startswith("Half of the truth")
    await call.end()
    await tab.ended(2)
    await settled(server, tab)


async def test_during_a_tool(server: Server, story: Story) -> None:
    """The tool confirms that it stopped: `cancelled`; the history of the next run is valid."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("once", {"line": line, "gate": line}, id="k1"), Use("tick", {"number": 1}, id="k2")))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    await tab.event("tool.returned", call="k2")
    await tab.do("cancel")
    await is_over(server, tab, story)
    assert tab.all("tool.failed", call="k1")[0]["error"]["kind"] == "cancelled"
    story.then(say("Yes."))
    await tab.do("prompt", text=story.says("And now?"))
    await tab.ended(2)
    assert set(story.calls[-1].results) == {"k1", "k2"}
    assert len(server.ledger(line)) == 1


@pytest.mark.parametrize("tool", ["stubborn", "blocking"])
async def test_during_a_tool_that_ignores_it(server: Server, story: Story, tool: str) -> None:
    """FAULTS 72, §2: abandoned after the grace time as `in_doubt`; what it did after all is `tool.settled`."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use(tool, {"line": line, "gate": line}, id="k1")))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    began = time.monotonic()
    await tab.do("cancel")
    ended = await tab.ended()
    assert time.monotonic() - began < 3
    assert tab.all("tool.failed", call="k1")[0]["error"]["kind"] == "in_doubt"
    server.let(line)
    late = await tab.event("tool.settled")
    assert (late["call"], late["of"], late["result"]) == ("k1", ended["run"], f"{line} is done") and "run" not in late
    await is_over(server, tab, story)
    await tab.do("prompt", text=story.says("And now?"))
    call = await story.call()
    assert f"{line} is done" not in str(call.messages)
    await call.end()
    await tab.ended(2)


async def test_during_a_sync_tool_that_looks(server: Server, story: Story) -> None:
    """`ctx.cancelled` is seen by a tool on a worker, which stops within the grace time."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("attentive", {"line": line, "gate": line}, id="k1")))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    await tab.do("cancel")
    await is_over(server, tab, story)
    await server.wrote(line, "stopped")


async def test_during_an_approval(server: Server, story: Story) -> None:
    """The approval is closed, the call has its result, no tool runs."""
    place = fresh("place")
    tab = await server.open()
    story.then(use(Use("reserve", {"place": place, "people": 2}, id="book")))
    await tab.do("prompt", text=story.says("Work"))
    await tab.event("run.suspended", reason="approval")
    await tab.do("cancel")
    await is_over(server, tab, story)
    assert [event["decision"] for event in tab.all("approval.decided")] == ["cancelled"]
    assert tab.all("tool.failed", call="book") and server.ledger(place) == []


async def test_during_a_retry_wait(server: Server, story: Story) -> None:
    """FAULTS 75: the wait is over at once and nothing is asked again."""
    tab = await server.open()
    story.then(refuse(429, retry_after="3"))
    await tab.do("prompt", text=story.says("Work"))
    await tab.event("model.failed")
    began = time.monotonic()
    await tab.do("cancel")
    await tab.ended()
    assert time.monotonic() - began < 2
    await is_over(server, tab, story)


async def test_from_another_reader_and_over_http(server: Server, story: Story) -> None:
    """A cancel never depends on the socket that started the run."""
    for how in ("socket", "http"):
        tab = await server.open()
        conversation = tab.attached["conversation"]
        await tab.do("prompt", text=story.says("Work"))
        call = await story.call()
        await tab.vanish()
        if how == "socket":
            other = await server.attach(conversation)
            await other.do("cancel")
        else:
            assert (await server.command(conversation, "cancel")).status_code == 202
        await call.aborted(2)
        await is_over(server, await server.again(tab), story)


async def test_twice_and_from_two_tabs(server: Server, story: Story) -> None:
    """FAULTS 70: idempotent: every one accepted, one terminal event."""
    line = fresh("line")
    tab = await server.open()
    other = await server.attach(tab.attached["conversation"])
    story.then(use(Use("stubborn", {"line": line, "gate": line})))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    await asyncio.gather(*(client.do("cancel") for client in (tab, other, tab, other)))
    await tab.ended()
    await tab.do("cancel")
    server.let(line)
    await tab.event("tool.settled")
    await is_over(server, tab, story)


async def test_racing_with_the_natural_end(server: Server, story: Story) -> None:
    """FAULTS 71: twenty times, at slightly different moments: exactly one terminal event, and what it says is true."""
    dice = random.Random(7)
    tab = await server.open()
    outcomes = []
    for number in range(1, 21):
        await tab.do("prompt", text=story.says(f"Race {number}"))
        call = await story.call()
        await call.text("Done.")

        async def cancel() -> None:
            await asyncio.sleep(dice.random() * 0.01)
            await tab.do("cancel")

        stopping = asyncio.create_task(cancel())
        try:
            await call.end()
        except ConnectionError:
            pass
        await stopping
        outcomes.append((await tab.ended(number))["type"])
    log = await settled(server, tab)
    assert len([record for record in log if record.type in RUN_ENDS]) == 20
    assert set(outcomes) <= {"run.completed", "run.cancelled"}


async def test_reconnecting_never_restarts_it(launch: Launch, story: Story) -> None:
    """Nor does a restart of the process."""
    server = await launch()
    tab = await server.open()
    await tab.do("prompt", text=story.says("Work"))
    call = await story.call()
    await call.text("Half")
    await tab.shows("Half")
    await tab.do("cancel")
    await server.restart()
    tab = await server.again(tab)
    await tab.frame("live")
    await is_over(server, tab, story)
    assert len(story.calls) == 1


async def test_a_new_prompt_right_after(server: Server, story: Story) -> None:
    """The conversation is free at once, also while an abandoned tool still runs."""
    line = fresh("line")
    tab = await server.open()
    story.then(use(Use("stubborn", {"line": line, "gate": line})))
    await tab.do("prompt", text=story.says("Work"))
    await server.wrote(line)
    await tab.do("cancel")
    await tab.ended()
    story.then(say("Here."))
    await tab.do("prompt", text=story.says("Are you there?"))
    assert (await tab.ended(2))["type"] == "run.completed"
    server.let(line)
    await tab.event("tool.settled")
    await settled(server, tab)
