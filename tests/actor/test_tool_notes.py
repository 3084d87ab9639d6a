"""SEMANTICS.md §8 from inside a tool: durable on return, once, bounded, never after the end. Rows 003-10, 003-11."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.actor.moving import Moving
from app.agent import Agent, NoteRefused, ToolContext, checkpoint, save_note, tool
from app.core import commands as c
from app.core.bounds import NOTE_CHARS_MAX
from app.core.errors import Rejected
from app.core.events import Call
from tests.actor.home import Home, Json, calls, virtual

SECRET = b"s" * 32


def at_work(work: Callable[[ToolContext], Awaitable[str]], **options: Any) -> Home:
    """A process whose model calls a tool that does this, and then is done."""

    @tool(**{"rerun": "safe", **options})
    async def acts(ctx: ToolContext) -> str:
        """Acts."""
        return await work(ctx)

    home = Home(Agent("a", instructions="Be brief.", tools=[acts, save_note, checkpoint]))
    home.model.lines.append(calls("acts"))
    return home


def notes(events: list[Json]) -> list[Json]:
    return [event for event in events if event["type"] == "note.saved"]


@virtual
async def test_it_returns_when_the_note_is_durable_and_not_before() -> None:
    """003-11, P1."""
    go, returned = asyncio.Event(), asyncio.Event()

    async def work(ctx: ToolContext) -> str:
        await go.wait()
        await ctx.note("decision", "SQLite, because there is one server")
        returned.set()
        return "done"

    home = at_work(work)
    conversation = await home.create()
    await home.until(conversation, "tool.started")
    home.log.gate.clear()
    go.set()
    await asyncio.sleep(60)
    assert not returned.is_set() and not notes(await home.events(conversation))
    home.log.gate.set()
    await returned.wait()
    [saved] = notes(await home.events(conversation))
    assert saved["text"] == "SQLite, because there is one server" and saved["call"] == "k1"
    await home.until(conversation, "run.completed")
    assert saved["text"] in home.model.requests[-1].messages[0]["content"]


@virtual
async def test_a_note_waits_while_nothing_can_be_written() -> None:
    """§11: disk full: nothing is told, nothing is lost, nothing is there twice."""
    go = asyncio.Event()

    async def work(ctx: ToolContext) -> str:
        await go.wait()
        await ctx.note("knowledge", "The disk was full")
        return "done"

    home = at_work(work)
    conversation = await home.create()
    await home.until(conversation, "tool.started")
    home.log.down = True
    go.set()
    await asyncio.sleep(30)
    assert not notes(await home.events(conversation))
    home.log.doubtful = 1  # stored, and yet the answer is lost: the identical append comes again
    home.log.down = False
    await home.until(conversation, "run.completed")
    assert len(notes(await home.events(conversation))) == 1


@virtual
async def test_a_call_that_is_run_again_after_a_crash_saves_nothing_twice() -> None:
    """003-10, 003-11: the process dies right after the call to it has returned."""
    tries: list[str] = []
    crashed = asyncio.Event()

    async def work(ctx: ToolContext) -> str:
        await ctx.note("knowledge", "one")
        await ctx.checkpoint("two", "done", "three")
        tries.append(ctx.call_id)
        if len(tries) == 1:
            crashed.set()
            await asyncio.get_running_loop().create_future()
        await ctx.note("knowledge", "four")
        return "done"

    home = at_work(work)
    conversation = await home.create()
    await crashed.wait()
    home.crash()
    home.boot()
    await home.directory.start()
    await home.until(conversation, "run.completed")
    saved = notes(await home.events(conversation))
    assert [note["text"] for note in saved] == ["one", "Done: two\nResult: done\nNext: three", "four"]
    assert tries == ["k1", "k1"] and len({note["note"] for note in saved}) == 3


@virtual
async def test_what_is_refused_is_told_to_the_tool_and_by_it_to_the_model() -> None:
    """P8: the tool may go on without the note; a ready tool says why there is none."""
    told: list[str] = []

    async def work(ctx: ToolContext) -> str:
        for kind, text in (("decision", ""), ("decision", "x" * (NOTE_CHARS_MAX + 1)), ("todo", "x")):
            with pytest.raises(NoteRefused) as refused:
                await ctx.note(kind, text)  # type: ignore[arg-type]
            told.append(str(refused.value))
        return "done"

    home = at_work(work)
    large = '{"task": "%s", "result": "r"}' % ("x" * NOTE_CHARS_MAX)
    home.model.lines.append([Call(call="k2", tool="checkpoint", arguments=large)])
    conversation = await home.create()
    await home.until(conversation, "run.completed")
    assert "no text" in told[0] and f"{NOTE_CHARS_MAX} characters" in told[1] and "progress, knowledge" in told[2]
    failed = await home.until(conversation, "tool.failed")
    assert failed["error"]["kind"] == "error" and f"{NOTE_CHARS_MAX} characters" in failed["error"]["message"]
    assert not notes(await home.events(conversation))


@virtual
async def test_a_tool_that_outlives_its_run_saves_nothing() -> None:
    """P7: after `run.cancelled` there is no further event of that run."""

    async def work(ctx: ToolContext) -> str:
        until = asyncio.get_running_loop().time() + 100
        while (left := until - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()  # type: ignore[union-attr]
        with pytest.raises(NoteRefused, match="over"):
            await ctx.note("knowledge", "too late")
        return "done after all"

    home = at_work(work, rerun="never")
    conversation = await home.create()
    await home.until(conversation, "tool.started")
    await home.say(conversation, c.Cancel(id="c"))
    settled = await home.until(conversation, "tool.settled")
    assert settled["result"] == "done after all" and not notes(await home.events(conversation))


async def test_a_tool_in_a_thread_waits_for_its_note() -> None:
    """003-11, in real time: `note_sync` for tools that are no coroutines; on the loop it would wait for itself."""

    @tool
    def blocks(ctx: ToolContext) -> str:
        """Blocks."""
        ctx.note_sync("environment", f"Written by {ctx.key}")
        return "done"

    @tool
    async def mistakes(ctx: ToolContext) -> str:
        """Mistakes the one for the other."""
        ctx.note_sync("environment", "never")
        return "done"

    home = Home(Agent("a", tools=[blocks, mistakes]))
    home.model.lines.append(calls("blocks", "mistakes"))
    conversation = await home.create()
    await home.until(conversation, "run.completed")
    [saved] = notes(await home.events(conversation))
    assert saved["text"] == f"Written by {saved['run']}/k1"
    assert "awaits ctx.note" in (await home.until(conversation, "tool.failed"))["error"]["message"]


@virtual
async def test_a_known_secret_is_not_noted() -> None:
    async def work(ctx: ToolContext) -> str:
        await ctx.note("environment", "key=sk-secret \ud800")
        await ctx.checkpoint("sk-secret", "sk-secret", "sk-secret")
        return "done"

    home = at_work(work)
    home.boot(redact=lambda text: text.replace("sk-secret", "[redacted]"))
    conversation = await home.create()
    await home.until(conversation, "run.completed")
    saved = notes(await home.events(conversation))
    assert len(saved) == 2 and "sk-secret" not in str(saved) and saved[0]["text"] == "key=[redacted] \ufffd"


@virtual
async def test_a_continuation_carries_them() -> None:
    """§8, §6: notes of tools and of people are before the model where the run goes on."""

    @tool(approval=True)
    async def guarded() -> str:
        """Needs approval."""
        return "allowed"

    agent = Agent("a", tools=[save_note, guarded])
    home, other = Home(agent), Home(agent)
    learned = Call(call="k1", tool="save_note", arguments='{"kind": "knowledge", "text": "The key is under the mat"}')
    home.model.lines.extend([[learned], calls("guarded", first=2)])
    conversation = await home.create()
    await home.until(conversation, "run.suspended")
    await home.say(conversation, c.Note(id="n", kind="decision", text="Only before noon"))
    taken = await Moving(home.directory, home.log, home.rules, SECRET).take(conversation, "ann")
    assert "under the mat" in taken["continuation"]["messages"][0]["content"]
    answered = {**taken, "approval_info": [{**info, "approved": True} for info in taken["approval_info"]]}
    put = await Moving(other.directory, other.log, other.rules, SECRET).put_back(answered, "ann", force=False)
    await other.until(put.conversation, "run.completed")
    [request] = other.model.requests
    for text in ("The key is under the mat", "Only before noon"):
        assert text in request.messages[0]["content"]
    assert [note.text for note in (await other.state(put.conversation)).notes] == [
        *("The key is under the mat", "Only before noon"),
    ]
    with pytest.raises(Rejected):
        await other.say(put.conversation, c.Note(id="n2", kind="decision", text=""))
