"""Continuations between two processes: SEMANTICS.md §6, §11. What arrives is what left, in a house of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.actor.directory import Created
from app.actor.moving import Moving
from app.agent import Agent, tool
from app.agent.model import ModelError
from app.core.commands import Deny, Prompt
from app.core.errors import Rejected
from app.core.events import Call
from app.store.event_log import Append, Row
from tests.actor.home import Home, Json, calls, virtual

SECRET = b"s" * 32


@tool(approval=True)
async def guarded() -> str:
    """Needs approval."""
    return "allowed"


def moving(home: Home) -> Moving:
    return Moving(home.directory, home.log, home.rules, SECRET)


async def waiting() -> tuple[Home, str]:
    """A process with a run that waits for approval, its second, so that much is archived there."""
    home = Home(Agent("a", tools=[guarded]))
    home.model.lines.extend([["first answer"], calls("guarded")])
    conversation = await home.create("first")
    await home.until(conversation, "archive.flushed")
    await home.say(conversation, Prompt(id="p2", text="second"))
    await home.until(conversation, "archive.flushed", times=2)
    return home, conversation


async def arrive(returned: Json, by: str = "ann") -> tuple[Home, Created]:
    """The object in another process with the same agents and the same key."""
    home = Home(Agent("a", tools=[guarded]))
    return home, await moving(home).put_back(returned, by, force=False)


def approved(exported: Json) -> Json:
    return {**exported, "approval_info": [{**info, "approved": True} for info in exported["approval_info"]]}


@virtual
async def test_a_taken_run_goes_on_and_its_whole_story_is_in_the_archive_here() -> None:
    """§6: nothing done before is repeated; 001-12: what another archive holds is not in this one."""
    home, conversation = await waiting()
    taken = await moving(home).take(conversation, "ann")
    assert (await home.types(conversation))[-1] in ("run.moved", "archive.flushed")
    other, put = await arrive(approved(taken))
    await other.until(put.conversation, "run.completed", times=2)
    await other.until(put.conversation, "archive.flushed")
    said = [(m.role, m.text) for m in await other.archive.messages(put.conversation)]
    assert said[:3] == [("user", "first"), ("assistant", "first answer"), ("user", "second")]
    assert ("tool", "allowed") in said and said[-1] == ("assistant", "done")
    assert len(await other.archive.runs(put.conversation)) == 2
    assert len(other.model.requests) == 1


@virtual
async def test_whoever_puts_it_back_owns_it() -> None:
    """Security rules: an owner of another server is nobody here."""
    home, conversation = await waiting()
    other, put = await arrive(await moving(home).take(conversation, "ann"), by="bob")
    item, _ = await other.log.item(put.conversation)
    assert item.owner == "bob"
    other.boot()
    assert (await other.state(put.conversation)).owner == "bob"


@virtual
async def test_what_a_newer_version_wrote_arrives_untouched() -> None:
    """§11: unknown event types and fields are kept and passed on, never dropped."""
    home, conversation = await waiting()
    head = await home.log.head(conversation)
    newer = [
        f'{{"type":"mood.changed","seq":{head.head + 1},"at":5,"mood":{{"is":"good"}}}}',
        f'{{"type":"conversation.renamed","seq":{head.head + 2},"at":5,"title":"T","font":"serif"}}',
    ]
    row = Row(head.head + 2, (head.head + 1, head.head + 2), tuple(newer))
    home.boot()
    await home.log.append(Append(conversation, head.head, head.epoch + 1, (row,)))
    taken = await moving(home).take(conversation, "ann")
    other, put = await arrive(taken)
    page = await other.log.read(put.conversation, 0, 10**9)
    assert set(newer) <= set(page.texts)
    assert (await other.state(put.conversation)).title == "T"


def broken(exported: Json, events: Any) -> Json:
    return {**exported, "holdfast": {**exported["holdfast"], "events": events, "key": "another"}}


@virtual
async def test_a_log_that_makes_no_sense_is_refused() -> None:
    """§6: missing or unknown ids, wrong paths: typed error, nothing runs, also where `force` trusts another key."""
    home, conversation = await waiting()
    taken = await moving(home).take(conversation, "ann")
    events: list[str] = taken["holdfast"]["events"]
    other = Home(Agent("a", tools=[guarded]))
    for wrong in (
        [],
        [*events, events[-1]],
        events[::-1],
        events[1:],
        [7],
        ["{"],
        ["{}"],
        "text",
        None,
        [*events, None],
    ):
        with pytest.raises(Rejected) as refusal:
            await moving(other).put_back(broken(taken, wrong), "ann", force=True)
        assert refusal.value.code in ("bad_command", "not_running")
    spaced = [event.replace('{"type"', '{\n"type"') for event in events]
    put = await moving(other).put_back(broken(taken, spaced), "ann", force=True)
    await asyncio.sleep(1)
    assert (await other.state(put.conversation)).status == "waiting"


@virtual
async def test_the_same_object_again_changes_nothing() -> None:
    """§6, 004-25: one conversation, one decision; after a restart too."""
    home, conversation = await waiting()
    taken = approved(await moving(home).take(conversation, "ann"))
    other, first = await arrive(taken)
    await other.until(first.conversation, "run.completed", times=2)
    before = await other.types(first.conversation)
    other.boot()
    again = await moving(other).put_back(taken, "ann", force=False)
    assert (again.conversation, again.run, again.duplicate) == (first.conversation, first.run, True)
    after = [type for type in await other.types(first.conversation) if type != "actor.activated"]
    assert after == [type for type in before if type != "actor.activated"]


@virtual
async def test_a_run_that_was_taken_refuses_to_continue_here() -> None:
    """§6: a run continued elsewhere refuses to continue here."""
    home, conversation = await waiting()
    taken = await moving(home).take(conversation, "ann")
    with pytest.raises(Rejected) as refusal:
        await moving(home).put_back(approved(taken), "ann", force=True)
    assert refusal.value.code == "not_running"


@tool(approval=True, expires_in=2)
async def hurried() -> str:
    """Needs approval at once."""
    return "in time"


async def two_approvals() -> tuple[Home, str, list[Agent]]:
    """A run that waits for two approvals, the first of which does not wait for long."""
    agents = [Agent("a", tools=[hurried, guarded])]
    home = Home(*agents)
    home.model.lines.append([Call(call="h", tool="hurried", arguments="{}"), *calls("guarded")])
    conversation = await home.create("first")
    await home.until(conversation, "run.suspended")
    return home, conversation, agents


@virtual
async def test_a_suspension_that_has_ended_by_itself_on_the_way_is_no_refusal() -> None:
    """§6, §9, 004-25: its time to be woken has come before it arrives; the same object again is no refusal either."""
    home = Home(Agent("a", tools=[guarded]), retry_ms=1_000)
    home.model.lines.append([ModelError("overloaded", "busy", retryable=True, retry_after=2)])
    conversation = await home.create("first")
    await home.until(conversation, "run.suspended")
    taken = await moving(home).take(conversation, "ann")
    await asyncio.sleep(5)
    other, put = await arrive(taken)
    assert not put.duplicate
    await other.until(put.conversation, "run.completed")
    again = await moving(other).put_back(taken, "ann", force=False)
    assert (again.conversation, again.duplicate) == (put.conversation, True)
    assert (await other.types(put.conversation)).count("run.resumed") == 1


@virtual
async def test_an_approval_that_has_expired_on_the_way_keeps_no_other_one_back() -> None:
    """§4, §6: expiry counts as denial, the object is put back all the same, and its other answer counts."""
    home, conversation, agents = await two_approvals()
    taken = await moving(home).take(conversation, "ann")
    await asyncio.sleep(3)
    other = Home(*agents)
    put = await moving(other).put_back(approved(taken), "ann", force=False)
    await other.until(put.conversation, "run.completed")
    results = [m.text for m in await other.archive.messages(put.conversation) if m.role == "tool"]
    assert "allowed" in results and "in time" not in results


@virtual
async def test_one_refused_answer_of_a_copy_keeps_no_other_one_back() -> None:
    """§6: decisions are independent; who was too late with one of them is told so."""
    home, conversation, _ = await two_approvals()
    copy = await moving(home).export(conversation)
    digest = copy["holdfast"]["digests"]["h"]
    await home.say(conversation, Deny(id="no", run=copy["holdfast"]["run"], call=["h"], digest=digest))
    with pytest.raises(Rejected) as refusal:
        await moving(home).put_back(approved(copy), "ann", force=False)
    assert refusal.value.code == "already_decided"
    await home.until(conversation, "run.completed")
    assert (await home.types(conversation)).count("tool.returned") == 1
