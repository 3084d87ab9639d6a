"""Continuations between two processes: SEMANTICS.md §6, §11. What arrives is what left, in a house of its own."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import msgspec
import pytest

from app.actor import moving as actor_moving
from app.actor.directory import Created
from app.actor.moving import Moving
from app.agent import Agent, ToolContext, tool
from app.agent.model import ModelError
from app.core.commands import Deny, Prompt
from app.core.errors import Rejected
from app.core.events import Call
from app.store.archive import Flush
from app.store.archive_memory import MemoryArchive
from app.store.event_log import Append, Row
from tests.actor.home import Home, Json, calls, virtual

SECRET = b"s" * 32


@tool(approval=True)
async def guarded() -> str:
    """Needs approval."""
    return "allowed"


@tool
async def long_result() -> str:
    """Says much."""
    return "much " * 20_000


@tool(approval=True)
async def measure(text: str) -> str:
    """Measures a text, once a person has agreed."""
    return f"{len(text)} characters"


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
    """§11, FAULTS 102: unknown event types and fields are kept and passed on, never dropped."""
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


@virtual
async def test_force_is_no_way_around_a_signature_that_can_be_checked() -> None:
    """004-24: a stranger's key is trusted only where neither the run is known nor a key was given."""
    home, conversation = await waiting()
    changed = approved(await moving(home).export(conversation))
    changed["holdfast"]["key"] = "another"
    shared = Home(Agent("a", tools=[guarded]))
    for mover in (moving(home), Moving(shared.directory, shared.log, shared.rules, SECRET, shared=True)):
        with pytest.raises(Rejected) as refusal:
            await mover.put_back(changed, "ann", force=True)
        assert refusal.value.code == "digest_mismatch"
    assert (await home.state(conversation)).status == "waiting"
    assert await shared.log.items("ann", limit=9) == []


async def refused_to_take(home: Home, conversation: str, run: str | None = None) -> None:
    with pytest.raises(Rejected) as refusal:
        await moving(home).take(conversation, "ann", run)
    assert refusal.value.code == "not_running"


@virtual
async def test_a_take_whose_answer_was_lost_is_repeated() -> None:
    """§6, 004-22: the very same object, after a crash and whatever the conversation did since."""
    home, conversation = await with_much()
    left = await moving(home).take(conversation, "ann")
    run = left["holdfast"]["run"]
    assert await moving(home).take(conversation, "ann") == left
    home.crash()
    home.boot()
    assert await moving(home).take(conversation, "ann", run) == left
    with pytest.raises(Rejected, match="No run is suspended"):
        await moving(home).export(conversation)
    home.model.lines.extend([calls("long_result"), ["done"]])
    await home.say(conversation, Prompt(id="p2", text="something else"))
    await home.until(conversation, "run.completed")
    await home.until(conversation, "archive.flushed", times=3)
    await refused_to_take(home, conversation)
    await refused_to_take(home, conversation, "another")
    again = await moving(home).take(conversation, "ann", run)
    assert again == left and msgspec.json.encode(again) == msgspec.json.encode(left)


@virtual
async def test_who_takes_while_another_takes_gets_the_same() -> None:
    """§6: a client that asks again before the first answer; the log says once that it has moved."""
    home, conversation = await waiting()
    first, *others = await asyncio.gather(*(moving(home).take(conversation, "ann") for _ in range(5)))
    assert others == [first] * 4
    assert (await home.types(conversation)).count("run.moved") == 1


@tool(rerun="ask", timeout=30)
async def unsure(ctx: ToolContext) -> str:
    """Says how far it is, and is cut off there."""
    ctx.progress("half")
    await asyncio.sleep(20)
    return "done"


@virtual
async def test_a_repeated_take_knows_nothing_of_pieces() -> None:
    """PROTOCOL §3.3: what the end of the run supersedes is in neither object; a call in doubt leaves its progress."""
    home = Home(Agent("a", tools=[unsure]))
    home.model.lines.append(calls("unsure"))
    conversation = await home.create()
    await home.until(conversation, "tool.progressed")
    home.crash()
    home.boot()
    await home.directory.start()
    await home.until(conversation, "run.suspended")
    assert "tool.progressed" in await home.types(conversation)
    left = await moving(home).take(conversation, "ann")
    assert "tool.progressed" not in await home.types(conversation)
    assert await moving(home).take(conversation, "ann") == left


@tool(timeout=1)
async def stubborn() -> str:
    """Does not stop when it is told to, and says much in the end."""
    until = asyncio.get_running_loop().time() + 100
    while (left := until - asyncio.get_running_loop().time()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue
    return "much " * 20_000


@virtual
async def test_what_a_call_that_was_given_up_left_later_is_in_no_object() -> None:
    """§10: its long result is kept after the run has moved; the object stays as it was."""
    home = Home(Agent("a", tools=[stubborn, guarded]))
    home.model.lines.extend([calls("stubborn"), calls("guarded", first=2)])
    conversation = await home.create()
    await home.until(conversation, "run.suspended")
    left = await moving(home).take(conversation, "ann")
    await home.until(conversation, "tool.settled")
    assert len(await home.log.log.kept_refs(conversation)) == 1
    assert await moving(home).take(conversation, "ann") == left


@virtual
async def test_a_run_that_has_come_back_is_not_given_out_by_where_it_was() -> None:
    """§6: it runs here again, in another conversation, which alone can give it."""
    home, conversation = await waiting()
    left = await moving(home).take(conversation, "ann")
    other, put = await arrive(left)
    await other.until(put.conversation, "run.suspended")
    back = await moving(other).take(put.conversation, "ann")
    here = await moving(home).put_back(back, "ann", force=False)
    assert here.run == left["holdfast"]["run"] and here.conversation != conversation
    await refused_to_take(home, conversation)
    third = await moving(home).take(here.conversation, "ann")
    assert await moving(home).take(here.conversation, "ann") == third
    await refused_to_take(home, conversation)


@virtual
async def test_a_log_that_travels_gives_nothing_that_left_it_before() -> None:
    """§6: with the second run of a conversation comes the story of the first, and no right to it."""
    home = Home(Agent("a", tools=[guarded]))
    home.model.lines.extend([calls("guarded"), calls("guarded")])
    conversation = await home.create()
    await home.until(conversation, "run.suspended")
    first = (await moving(home).take(conversation, "ann"))["holdfast"]["run"]
    await home.say(conversation, Prompt(id="p2", text="second"))
    await home.until(conversation, "run.suspended", times=2)
    second = await moving(home).take(conversation, "ann")
    assert second["holdfast"]["run"] != first
    other, put = await arrive(second)
    await refused_to_take(other, put.conversation, first)
    assert (await moving(home).take(conversation, "ann", first))["holdfast"]["run"] == first


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


def writer() -> Agent:
    return Agent("a", tools=[long_result, measure])


async def with_much() -> tuple[Home, str]:
    """A run that waits; its result so far and the arguments of the call that waits are too long for events."""
    home = Home(writer())
    long = Call(call="k2", tool="measure", arguments=f'{{"text": "{"x" * 70_000}"}}')
    home.model.lines.extend([calls("long_result"), [long]])
    conversation = await home.create()
    await home.until(conversation, "run.suspended")
    return home, conversation


@virtual
async def test_what_is_kept_beside_the_log_travels_with_it() -> None:
    """004-7: the object is sufficient: an approved call gets its whole arguments on a server that has nothing else."""
    home, conversation = await with_much()
    taken = approved(await moving(home).take(conversation, "ann"))
    assert len(taken["holdfast"]["kept"]) == 2
    other = Home(writer())
    put = await moving(other).put_back(msgspec.json.decode(msgspec.json.encode(taken)), "ann", force=False)
    await other.until(put.conversation, "run.completed")
    results = [event["result"] for event in await other.events(put.conversation) if event["type"] == "tool.returned"]
    assert results[1] == "70000 characters"
    for ref, text in taken["holdfast"]["kept"].items():
        assert await other.log.kept(put.conversation, ref) == text and len(text) > 65_536
    changed = copy.deepcopy(taken)
    changed["holdfast"]["kept"] = {ref: text[1:] for ref, text in taken["holdfast"]["kept"].items()}
    with pytest.raises(Rejected) as refusal:
        await moving(Home(writer())).put_back(changed, "ann", force=False)
    assert refusal.value.code == "digest_mismatch"


@virtual
@pytest.mark.parametrize("bytes_max", [60_000, 200_000, 400_000])
async def test_a_continuation_that_is_too_large_stays_where_it_is(bytes_max: int) -> None:
    """P8: the bound is reached by the log, by what is kept, or by the whole; the run is not taken, and goes on here."""
    home, conversation = await with_much()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actor_moving, "CONTINUATION_BYTES_MAX", bytes_max)
        with pytest.raises(Rejected) as refusal:
            await moving(home).take(conversation, "ann")
    assert refusal.value.code == "too_large" and f"{bytes_max:,} bytes" in refusal.value.message
    await moving(home).put_back(approved(await moving(home).export(conversation)), "ann", force=False)
    await home.until(conversation, "run.completed")


@virtual
async def test_what_is_refused_founds_nothing() -> None:
    """004-28: unsigned: an answer to nothing, a missing id in `processed`, another run: nothing is left of it here."""
    home, conversation = await waiting()
    taken = approved(await moving(home).take(conversation, "ann"))
    taken["holdfast"]["key"] = "another"
    info, ours = taken["approval_info"][0], taken["holdfast"]
    wrong: list[Json] = [
        {**taken, "approval_info": [{**info, "path_ids": ["k7"]}]},
        {**taken, "approval_info": []},
        {**taken, "continuation": {**taken["continuation"], "processed": [{"id": "k1", "approved": True}]}},
        {**taken, "continuation": {**taken["continuation"], "resume_request": []}},
        {**taken, "holdfast": {**ours, "run": "another"}},
        {**taken, "holdfast": {**ours, "digests": {"k1": "another"}}},
    ]
    other = Home(Agent("a", tools=[guarded]))
    for object in wrong:
        with pytest.raises(Rejected) as refusal:
            await moving(other).put_back(object, "ann", force=True)
        assert refusal.value.code in ("no_such_approval", "digest_mismatch", "not_running")
        assert await other.log.items("ann", limit=9) == []
    await moving(other).put_back(taken, "ann", force=True)


class SlowArchive:
    """The memory archive, which answers when the gate is opened."""

    def __init__(self, archive: MemoryArchive) -> None:
        self.archive = archive
        self.gate = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.archive, name)

    async def flush(self, flush: Flush) -> None:
        await self.gate.wait()
        await self.archive.flush(flush)


@virtual
async def test_a_run_is_taken_whatever_is_written_beside_it_just_then() -> None:
    """004-21: the archive is flushed after a suspension, at any moment between the export and the end of the run."""
    for turns in range(40):
        home = Home(Agent("a", tools=[guarded]))
        archive = SlowArchive(home.archive)
        home.boot(archive=archive)
        home.model.lines.append(calls("guarded"))
        conversation = await home.create()
        await home.until(conversation, "run.suspended")
        taking = asyncio.create_task(moving(home).take(conversation, "ann"))
        for _ in range(turns):
            await asyncio.sleep(0)
        archive.gate.set()
        assert (await taking)["holdfast"]["taken"]


@virtual
async def test_a_run_is_at_home_in_one_conversation() -> None:
    """001-11: a log that comes here again tells of runs that have gone on here; what came of them is left alone."""
    home, conversation = await waiting()
    first = (await home.state(conversation)).run
    assert first is not None
    one = await moving(home).take(conversation, "ann")
    home.model.lines.append(calls("guarded"))
    await home.say(conversation, Prompt(id="p3", text="third"))
    await home.until(conversation, "approval.requested", times=2)
    two = await moving(home).take(conversation, "ann")
    other, put = await arrive(approved(one))
    await other.until(put.conversation, "run.completed", times=2)
    await other.until(put.conversation, "archive.flushed")
    again = await moving(other).put_back(approved(two), "ann", force=False)
    await other.until(again.conversation, "run.completed", times=2)
    await other.until(again.conversation, "archive.flushed")
    assert await other.log.find_run(first.run) == put.conversation
    assert [(run.run, run.status) for run in await other.archive.runs(put.conversation)][-1] == (first.run, "completed")
    assert [run.run for run in await other.archive.runs(again.conversation)] == [again.run]


@virtual
async def test_what_comes_home_leaves_the_runs_of_its_first_home_there() -> None:
    """001-11, 004-22: the conversation that a run left keeps its own; the run is where it went on."""
    home, conversation = await waiting()
    before = [run.run for run in await home.archive.runs(conversation)]
    there, put = await arrive(await moving(home).take(conversation, "ann"))
    back = await moving(there).take(put.conversation, "ann")
    come = await moving(home).put_back(approved(back), "ann", force=False)
    await home.until(come.conversation, "run.completed", times=2)
    await home.until(come.conversation, "archive.flushed")
    assert [run.run for run in await home.archive.runs(conversation)] == before[:1]
    assert [run.run for run in await home.archive.runs(come.conversation)] == [come.run]
    assert await home.log.find_run(before[0]) == conversation


@virtual
async def test_who_knows_how_a_run_ended_becomes_its_home() -> None:
    """§6: a run that left and ended elsewhere comes back in the log of another: it is not there to be taken again."""
    home, conversation = await waiting()
    first = (await home.state(conversation)).run
    assert first is not None
    there, put = await arrive(approved(await moving(home).take(conversation, "ann")))
    await there.until(put.conversation, "run.completed", times=2)
    there.model.lines.append(calls("guarded"))
    await there.say(put.conversation, Prompt(id="p3", text="third"))
    await there.until(put.conversation, "approval.requested", times=2)
    come = await moving(home).put_back(approved(await moving(there).take(put.conversation, "ann")), "ann", force=False)
    await home.until(come.conversation, "run.completed", times=3)
    await home.until(come.conversation, "archive.flushed")
    assert await home.log.find_run(first.run) == come.conversation
    assert (await moving(home).output(come.conversation, first.run))["end_reason"] == "completed"
    known = {run.run: run.status for run in await home.archive.runs(come.conversation)}
    assert known == {first.run: "completed", come.run: "completed"}
    with pytest.raises(Rejected) as refused:
        await moving(home).take(conversation, "ann", first.run)
    assert refused.value.code == "not_running"


@virtual
async def test_the_calls_of_a_run_go_where_it_goes() -> None:
    """001-11: the conversation that it has left may be deleted, and what the run did stays in the archive."""
    home, conversation = await waiting()
    there, put = await arrive(await moving(home).take(conversation, "ann"))
    come = await moving(home).put_back(approved(await moving(there).take(put.conversation, "ann")), "ann", force=False)
    await home.until(come.conversation, "run.completed", times=2)
    await home.until(come.conversation, "archive.flushed")
    await home.archive.remove(conversation)
    assert [(key[0], call.status) for key, call in home.archive.calls.items()] == [(come.run, "returned")]
