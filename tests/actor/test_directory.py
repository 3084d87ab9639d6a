"""The directory: one actor per conversation, brought into memory and let go, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from app.actor.directory import CRASHES_MAX
from app.actor.listing import Watcher
from app.actor.sweeping import IDLE_SWEEPS, RESTORE_MS, SWEEP_SECONDS
from app.agent import Agent, tool
from app.core import commands as c
from app.core.errors import Corrupt, Rejected
from app.core.state import State
from app.store.event_log import Unavailable
from app.wire.close_codes import DELETED, SERVICE_RESTART
from tests.actor.home import BEGAN_MS, Home, busy, calls, virtual

PASSIVATED = SWEEP_SECONDS * (IDLE_SWEEPS + 1)


@tool
async def slow() -> str:
    """Works for a minute."""
    await asyncio.sleep(60)
    return "slept"


@tool(approval=True)
async def guarded() -> str:
    """Needs approval."""
    return "allowed"


@tool(rerun="safe", timeout=1_000)
async def patient() -> str:
    """Works for ten minutes, any number of times."""
    await asyncio.sleep(600)
    return "slept"


# --- activation


@virtual
async def test_whoever_comes_while_it_is_created_waits_for_its_actor() -> None:
    """Durable, and listed, before its actor is here: a reader and the sweep meet that one, never one of their own."""
    home = Home()
    home.model.lines.append(["done"])
    await home.directory.start()
    home.log.answers.clear()
    creating = asyncio.create_task(home.create())
    while not (stored := await home.log.log.unfinished(2**62)):
        await asyncio.sleep(0.01)
    [conversation] = stored
    asking = asyncio.create_task(home.directory.feed(conversation))
    await asyncio.sleep(SWEEP_SECONDS + 1)
    home.log.answers.set()
    assert await creating == conversation and (await asking).closed is None
    await home.until(conversation, "run.completed")
    types = await home.types(conversation)
    assert "actor.activated" not in types and types.count("step.started") == 1 == len(home.model.requests)


@virtual
async def test_whoever_comes_at_once_waits_for_the_same_activation() -> None:
    """DESIGN §2 activate: one actor per conversation, folded once."""
    home = Home()
    conversation = await home.create(prompt=None)
    home.boot()
    home.log.calls.clear()
    feeds = await asyncio.gather(*(home.directory.feed(conversation) for _ in range(50)))
    assert len(set(map(id, feeds))) == 1
    assert home.log.calls.count("head") == 1


@virtual
async def test_reading_claims_no_epoch_and_the_first_command_does() -> None:
    """DESIGN §4g: `actor.activated` carries the new epoch."""
    home = Home()
    conversation = await home.create(prompt=None)
    home.boot()
    await home.state(conversation)
    assert await home.types(conversation) == ["conversation.created"]
    await home.say(conversation, c.Rename(id="r1", title="T"))
    await home.say(conversation, c.Rename(id="r2", title="U"))
    assert [event.get("epoch") for event in await home.events(conversation) if event["type"] == "actor.activated"] == [
        2
    ]


@virtual
async def test_what_is_not_there() -> None:
    """PROTOCOL §1.2 `not_found`."""
    home = Home()
    with pytest.raises(KeyError):
        await home.directory.feed("nobody")
    with pytest.raises(KeyError):
        await home.say("nobody", c.Cancel(id="c"))
    assert home.in_memory == []


@virtual
async def test_a_creation_has_one_answer_for_ever() -> None:
    """PROTOCOL §2: also when the first answer was lost and the process with it."""
    home = Home()
    first = await home.directory.create(owner="ann", agent="a", title="", prompt="go", id="c1")
    again = await home.directory.create(owner="ann", agent="a", title="", prompt="go", id="c1")
    assert (again.conversation, again.run, again.duplicate) == (first.conversation, first.run, True)
    home.boot()
    third = await home.directory.create(owner="ann", agent="a", title="", prompt="other", id="c1")
    assert third == again


@virtual
async def test_a_creation_in_doubt_is_picked_up() -> None:
    """FAULTS 3: committed, not answered: the run begins all the same, once."""
    home = Home()
    await home.directory.start()
    home.log.doubtful = 1
    with pytest.raises(Unavailable):
        await home.create(id="c1")
    again = await home.directory.create(owner="ann", agent="a", title="", prompt="go", id="c1")
    assert again.duplicate
    await home.until(again.conversation, "run.completed")
    assert len(home.model.requests) == 1


# --- passivation


@virtual
async def test_an_idle_actor_leaves_memory_and_comes_back() -> None:
    """FAULTS 28, §4: nothing needs to run while nobody asks."""
    home = Home(Agent("a", tools=[guarded]))
    await home.directory.start()
    home.model.lines.append(calls("guarded"))
    conversation = await home.create()
    request = await home.until(conversation, "approval.requested")
    await asyncio.sleep(PASSIVATED)
    assert home.in_memory == []
    decision = c.Approve(id="y", run=request["run"], call=["k1"], digest=request["digest"])
    await home.say(conversation, decision)
    await home.until(conversation, "run.completed")
    await asyncio.sleep(PASSIVATED)
    assert home.in_memory == [] and not home.directory._tasks


@virtual
async def test_a_reader_keeps_it_and_so_does_work() -> None:
    """Passivation never ends a reader or a tool."""
    home = Home(Agent("a", tools=[patient]))
    await home.directory.start()
    watched = await home.create(prompt=None)
    feed = await home.directory.feed(watched)
    feed.join(lambda: None)
    home.model.lines.append(calls("patient"))
    working = await home.create()
    await asyncio.sleep(300)
    assert sorted(home.in_memory) == sorted([watched, working]) and feed.closed is None
    await home.until(working, "tool.returned", seconds=900)


@virtual
async def test_a_run_that_was_suspended_by_the_provider_comes_back_by_itself() -> None:
    """§9: woken by itself, though it left memory meanwhile; and it leaves memory (it used to turn for ever)."""
    home = Home(retry_ms=300_000)
    await home.directory.start()
    home.model.lines.extend([busy(retry_after=60)] for _ in range(6))
    conversation = await home.create()
    suspended = await home.until(conversation, "run.suspended")
    assert suspended["reason"] == "retry"
    await asyncio.sleep(120)
    assert home.in_memory == []
    await home.until(conversation, "run.completed")
    assert "run.resumed" in await home.types(conversation)


@virtual
async def test_an_approval_expires_though_nobody_is_there() -> None:
    """§4: expiry counts as denial; the sweep finds it."""

    @tool(approval=True, expires_in=3_600)
    async def hurried() -> str:
        """Needs approval within an hour."""
        return "no"

    home = Home(Agent("a", tools=[hurried]))
    await home.directory.start()
    home.model.lines.append(calls("hurried"))
    conversation = await home.create()
    await asyncio.sleep(60)
    assert home.in_memory == []
    decided = await home.until(conversation, "approval.decided", seconds=4_000)
    assert decided["decision"] == "expired"
    await home.until(conversation, "run.completed")


@virtual
async def test_nothing_turns_while_a_run_is_suspended() -> None:
    """P8: a plan that names a time in the past makes the wheel turn for ever."""
    home = Home(retry_ms=300_000)
    home.model.lines.extend([busy(retry_after=60)] for _ in range(6))
    conversation = await home.create()
    await home.until(conversation, "run.suspended")
    actor = home.directory._actors[conversation]
    nudges = 0
    nudge = actor.nudge

    def counted() -> None:
        nonlocal nudges
        nudges += 1
        assert nudges < 10, "it turns for ever"
        nudge()

    actor.nudge = counted  # type: ignore[method-assign]
    await asyncio.sleep(200)
    assert nudges == 0


# --- start


@virtual
async def test_every_unfinished_run_is_picked_up_before_start_returns() -> None:
    """P5, §11: running again, waiting, or ended, before `/readyz` says yes."""
    home = Home(Agent("a", tools=[slow, guarded]))
    gate = asyncio.Event()
    home.model.lines.extend([calls("slow"), calls("guarded"), [gate, "done"]])
    working, waiting = await home.create(), await home.create()
    await home.until(working, "tool.started")
    await home.until(waiting, "approval.requested")
    home.crash()
    home.boot()
    await home.directory.start()
    assert (await home.types(working))[-3:] == ["actor.activated", "tool.failed", "step.started"]
    assert (await home.state(waiting)).status == "waiting"
    gate.set()
    await home.until(working, "run.completed")


@virtual
async def test_a_damaged_conversation_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 18: only that conversation is quarantined: neither the start nor the sweep ends with it."""
    home = Home(Agent("a", tools=[slow]), retry_ms=300_000)
    home.model.lines.extend([calls("slow"), calls("slow"), [busy(retry_after=5)]])
    damaged, contradicting, other = await home.create(), await home.create(), await home.create()
    for conversation in (damaged, contradicting):
        await home.until(conversation, "tool.started")
    stored = home.log.log._conversations
    home.crash()
    first = stored[damaged].lasting[0]
    broken = replace(first.row, texts=tuple("{]" for _ in first.row.texts))
    stored[damaged].lasting[0] = replace(first, row=broken)
    rows = stored[contradicting].lasting
    rows.remove(next(row for row in rows if "model.replied" in row.row.texts[0]))
    home.boot()
    with caplog.at_level(logging.ERROR):
        await home.directory.start()
        await home.until(other, "run.completed")
        await asyncio.sleep(60)
    assert home.in_memory == [], "the sweep lives"
    for conversation in (damaged, contradicting):
        with pytest.raises(Corrupt):
            await home.directory.feed(conversation)
    assert sum("left alone" in record.getMessage() for record in caplog.records) == 2, "said once each"


@virtual
async def test_an_actor_that_fails_each_time_does_not_keep_the_process_from_starting(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 12, P5: no crash loop, neither of the process nor of the actor."""
    home = Home()
    gate = asyncio.Event()
    home.model.lines.extend([[gate], ["fine"]])
    bad, good = await home.create(), await home.create()
    await home.until(bad, "step.started")
    home.crash()
    home.boot()
    append = home.log.log.append
    tries = 0

    async def poisoned(what: object) -> None:
        nonlocal tries
        if getattr(what, "conversation", None) == bad:
            tries += 1
            raise RuntimeError("a fault of our own")
        await append(what)  # type: ignore[arg-type]

    monkeypatch.setattr(home.log.log, "append", poisoned)
    with caplog.at_level(logging.CRITICAL):
        await home.directory.start()
        await asyncio.sleep(120)
    assert CRASHES_MAX < tries <= 2 * CRASHES_MAX + 2, "left alone until somebody asks for it"
    await home.until(good, "run.completed")


@virtual
async def test_a_fenced_owner_ends_and_the_log_is_folded_again() -> None:
    """DESIGN §4b: Fenced: the memory is worthless, the next activation folds the log."""
    home = Home()
    gate = asyncio.Event()
    home.model.lines.extend([["half ", gate], ["whole"]])
    conversation = await home.create()
    await home.until(conversation, "text.streamed")
    feed = await home.directory.feed(conversation)
    stored = home.log.log._conversations[conversation]
    stored.epoch = 7
    gate.set()
    await asyncio.sleep(0.5)
    assert feed.closed == SERVICE_RESTART
    await home.until(conversation, "run.completed")
    events = await home.events(conversation)
    assert [event["epoch"] for event in events if event["type"] == "actor.activated"] == [8]
    assert [event["text"] for event in events if event["type"] == "model.replied"] == ["whole"]


# --- the store in trouble


@virtual
async def test_while_the_store_is_stuck_people_are_told_and_nothing_is_lost() -> None:
    """§11, FAULTS 14, 15, 16: the identical batch again; what is in doubt gets its answer when its outcome is known."""
    home = Home()
    conversation = await home.create(prompt=None)
    home.log.down = True
    doubtful = asyncio.create_task(home.say(conversation, c.Rename(id="r1", title="T")))
    await asyncio.sleep(0.01)
    with pytest.raises(Rejected) as refusal:
        async with asyncio.timeout(10):
            await home.say(conversation, c.Rename(id="r2", title="U"))
    assert refusal.value.code == "storage_unavailable"
    state = await home.state(conversation)
    assert state.title == "", "reading goes on, and sees what is committed"
    await asyncio.sleep(3_600)
    assert not doubtful.done()
    home.log.down = False
    assert (await doubtful).seq == 2
    assert not (await home.say(conversation, c.Rename(id="r2", title="U"))).duplicate


@virtual
async def test_an_append_in_doubt_is_stored_once() -> None:
    """P3: the same bytes again succeed without effect."""
    home = Home()
    conversation = await home.create(prompt=None)
    home.log.doubtful = 3
    decision = await home.say(conversation, c.Prompt(id="p1", text="go"))
    await home.until(conversation, "run.completed")
    assert (await home.types(conversation)).count("prompt.given") == 1
    assert (await home.say(conversation, c.Prompt(id="p1", text="go"))).seq == decision.seq


@virtual
async def test_a_flush_holds_what_was_committed_when_it_was_wanted() -> None:
    """DESIGN §1.3 commit, then tell; world 207: the state may be ahead of the log when the flush begins."""
    home = Home()
    told = asyncio.Event()
    home.model.lines.append([told, "first"])
    conversation = await home.create()
    await home.until(conversation, "step.started")
    home.log.gate.clear()
    told.set()
    await asyncio.sleep(1)
    waiting = asyncio.create_task(home.say(conversation, c.Prompt(id="p2", text="again")))
    await asyncio.sleep(1)
    home.log.gate.set()
    home.log.gate.clear()  # lets the append through that waits, and no other
    await asyncio.sleep(1)
    assert [run.status for run in await home.archive.runs(conversation)] == ["completed"]
    assert [message.text for message in await home.archive.messages(conversation)] == ["go", "first"]
    assert not waiting.done()
    home.log.gate.set()
    await waiting
    await home.until(conversation, "run.completed", times=2)


@virtual
async def test_a_flush_that_a_crash_cut_off_is_repeated_at_the_start() -> None:
    """FAULTS 9: the run is over and nobody asks for it any more; the archive gets it all the same."""
    home = Home()
    end = asyncio.Event()
    home.model.lines.append(["done", end])
    conversation = await home.create()
    await home.until(conversation, "text.streamed")
    home.log.answers.clear()
    end.set()
    await home.until(conversation, "run.completed")
    home.crash()
    assert await home.archive.runs(conversation) == []
    home.boot()
    await home.directory.start()
    await home.until(conversation, "archive.flushed", seconds=1)
    assert [run.status for run in await home.archive.runs(conversation)] == ["completed"]


# --- deletion


@virtual
async def test_deleting_cancels_the_run_and_ends_every_reader_for_ever() -> None:
    """FAULTS 74, PROTOCOL §2 DELETE."""
    home = Home(Agent("a", tools=[slow]))
    home.model.lines.append(calls("slow"))
    conversation = await home.create()
    await home.until(conversation, "tool.started")
    feed = await home.directory.feed(conversation)
    feed.join(lambda: None)
    watcher = Watcher("ann")
    home.directory.listing.join(watcher)
    await home.directory.delete(conversation, "ann")
    types = await home.types(conversation)
    assert types[types.index("cancel.requested") :][:3] == ["cancel.requested", "tool.failed", "run.cancelled"]
    assert feed.closed == DELETED and home.in_memory == []
    assert watcher.take() == {conversation: None}
    with pytest.raises(KeyError):
        await home.directory.feed(conversation)


@virtual
async def test_words_that_come_during_a_deletion_start_nothing() -> None:
    """FAULTS 74: run cancelled first; a stop is no reason to begin the next run in what is being deleted."""

    @tool(interruptible=False)
    async def stubborn() -> str:
        """Does not stop."""
        for _ in range(5):
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                pass
        return "at last"

    home = Home(Agent("a", tools=[stubborn]))
    home.model.lines.append(calls("stubborn"))
    conversation = await home.create()
    await home.until(conversation, "tool.started")
    deleting = asyncio.create_task(home.directory.delete(conversation, "ann"))
    await asyncio.sleep(0.1)
    with pytest.raises(KeyError):
        await home.say(conversation, c.Prompt(id="p2", text="one more"))
    await deleting
    assert await home.directory.restore(conversation)
    assert (await home.state(conversation)).status == "idle"


@virtual
async def test_a_run_that_cannot_be_stopped_is_not_deleted() -> None:
    """§11: new commands get `storage_unavailable`; a run that nobody stopped would go on after a restore."""
    home = Home()
    gate = asyncio.Event()
    home.model.lines.append(["half ", gate])
    conversation = await home.create()
    await home.until(conversation, "text.streamed")
    home.log.down = True
    doubtful = asyncio.create_task(home.say(conversation, c.Rename(id="r", title="T")))
    await asyncio.sleep(0.1)
    with pytest.raises(Rejected) as refusal:
        await home.directory.delete(conversation, "ann")
    assert refusal.value.code == "storage_unavailable"
    home.log.down = False
    await doubtful
    gate.set()
    await home.until(conversation, "run.completed")


@virtual
async def test_a_deletion_can_be_undone_for_ten_minutes() -> None:
    """PROTOCOL §2, FAULTS 74: then everything is removed, the archive too."""
    home = Home()
    await home.directory.start()
    kept, gone = await home.create(), await home.create()
    for conversation in (kept, gone):
        await home.until(conversation, "archive.flushed")
        await home.directory.delete(conversation, "ann")
    await asyncio.sleep(RESTORE_MS / 1000 - 10)
    assert await home.directory.restore(kept)
    assert not await home.directory.restore(kept), "once"
    await asyncio.sleep(30)
    assert not await home.directory.restore(kept)
    with pytest.raises(KeyError):
        await home.directory.restore(gone)
    assert await home.archive.messages(gone) == [] and await home.archive.messages(kept) != []
    assert (await home.state(kept)).status == "idle"


@virtual
async def test_a_crash_in_a_purge_leaves_it_to_the_next_process() -> None:
    """§2 DELETE: the archive goes first, so that what is left is found again and removed."""
    home = Home()
    await home.directory.start()
    conversation = await home.create()
    await home.until(conversation, "archive.flushed")
    await home.directory.delete(conversation, "ann")
    home.log.down = True  # the purge itself does not come about
    await asyncio.sleep(RESTORE_MS / 1000 + 10)
    assert await home.archive.messages(conversation) == []
    home.crash()
    home.boot()
    await home.directory.start()
    await asyncio.sleep(10)
    with pytest.raises(KeyError):
        await home.log.log.head(conversation)


# --- an older copy, and a clock that jumps


@virtual
async def test_runs_of_an_older_copy_are_stopped_before_they_do_anything() -> None:
    """P6, FAULTS 17, 22: what they did since the copy was made is unknown: in doubt, cancelled, never done again."""
    home = Home(Agent("a", tools=[slow]))
    home.model.lines.append(calls("slow"))
    working = await home.create()
    await home.until(working, "tool.started")
    gate = asyncio.Event()
    home.model.lines.append([gate])
    speaking = await home.create()
    await home.until(speaking, "step.started")
    home.crash()
    home.boot()
    asked = len(home.model.requests)
    await home.directory.start(older=True)
    for conversation in (working, speaking):
        assert "run.cancelled" in await home.types(conversation)
        assert (await home.state(conversation)).status == "idle"
    assert len(home.model.requests) == asked and (await home.types(working)).count("tool.started") == 1
    await home.say(working, c.Prompt(id="p2", text="go on"))
    await home.until(working, "run.completed")


@virtual
async def test_a_clock_that_jumps_disturbs_nothing() -> None:
    """FAULTS 23: an hour back, an hour on: order is by seq, deadlines of tools and models go by the monotonic clock."""
    home = Home(Agent("a", tools=[slow]))
    ahead = 0
    home.boot(clock=lambda: BEGAN_MS + ahead + int(asyncio.get_running_loop().time() * 1000))
    await home.directory.start()
    for jump in (3_600_000, -7_200_000, 3_600_000):
        home.model.lines.append(calls("slow"))
        conversation = await home.create()
        began = asyncio.get_running_loop().time()
        await home.until(conversation, "tool.started")
        ahead += jump
        await home.until(conversation, "run.completed")
        assert 59 <= asyncio.get_running_loop().time() - began <= 63
        seqs = [event["seq"] for event in await home.events(conversation)]
        assert seqs == sorted(set(seqs))


# --- going down


@virtual
async def test_a_drain_parks_runs_and_the_next_process_goes_on() -> None:
    """§11, FAULTS 98: at a boundary; what follows is no crash."""
    home = Home(Agent("a", tools=[slow]), crashes_max=1)
    home.model.lines.append(calls("slow", "slow"))
    conversation = await home.create()
    await home.until(conversation, "tool.started", times=2)
    began = asyncio.get_running_loop().time()
    await home.directory.drain(90)
    assert 59 <= asyncio.get_running_loop().time() - began <= 61, "a tool that ends before the deadline is not cut"
    assert (await home.types(conversation))[-3:] == ["tool.returned", "tool.returned", "actor.drained"]
    assert home.in_memory == []
    home.boot()
    await home.directory.start()
    await home.until(conversation, "run.completed")
    assert len(home.model.requests) == 2


@virtual
async def test_what_does_not_park_in_time_is_left_as_by_a_crash_that_is_not_counted() -> None:
    """§11: exit in time; §1: it followed a drain."""
    home = Home(Agent("a", tools=[slow]), crashes_max=1)
    home.model.lines.append(calls("slow"))
    conversation = await home.create()
    await home.until(conversation, "tool.started")
    await home.directory.drain(5)
    assert (await home.types(conversation))[-1] == "actor.drained"
    home.boot()
    await home.directory.start()
    await home.until(conversation, "run.completed")
    failed = await home.until(conversation, "tool.failed")
    assert failed["error"]["kind"] == "in_doubt"


@tool
async def tidy() -> str:
    """Works for an hour, and needs a while to stop."""
    try:
        await asyncio.sleep(3_600)
    finally:
        await asyncio.sleep(0.3)
    return "slept"


@virtual
async def test_a_stop_is_carried_out_while_the_process_goes() -> None:
    """§2, §11: its tools have the grace time in a drain, too: what confirms that it stopped is not in doubt."""
    home = Home(Agent("a", tools=[tidy]))
    home.model.lines.append(calls("tidy"))
    conversation = await home.create()
    await home.until(conversation, "tool.started")
    draining = asyncio.create_task(home.directory.drain(20))
    await asyncio.sleep(0.1)
    await home.say(conversation, c.Cancel(id="c1"))
    await draining
    assert (await home.types(conversation))[-2:] == ["run.cancelled", "archive.flushed"]
    assert (await home.until(conversation, "tool.failed"))["error"]["kind"] == "cancelled"


@virtual
async def test_a_drain_does_not_wait_for_a_store_that_is_stuck() -> None:
    """FAULTS 99: an own deadline for everything."""
    home = Home()
    conversation = await home.create(prompt=None)
    home.log.down = True
    doubtful = asyncio.create_task(home.say(conversation, c.Rename(id="r1", title="T")))
    await asyncio.sleep(0.1)
    began = asyncio.get_running_loop().time()
    await home.directory.drain(5)
    assert asyncio.get_running_loop().time() - began < 8
    with pytest.raises(Unavailable):
        await doubtful


@virtual
async def test_reading_what_a_drain_has_parked_writes_nothing() -> None:
    """§11: readers that come back before the process has gone start nothing, and claim nothing."""
    home = Home(Agent("a", tools=[guarded]))
    gate = asyncio.Event()
    home.model.lines.append([gate, *calls("guarded")])
    conversation = await home.create()
    await home.until(conversation, "step.started")
    await home.say(conversation, c.Prompt(id="p2", text="next"))
    draining = asyncio.create_task(home.directory.drain(20))
    await asyncio.sleep(0.1)
    gate.set()
    await draining
    before = await home.types(conversation)
    for _ in range(20):
        assert (await home.state(conversation)).queue
        feed = await home.directory.feed(conversation)
        await asyncio.sleep(1)
        assert feed.closed in (None, SERVICE_RESTART)
    assert await home.types(conversation) == before


@virtual
async def test_queued_words_start_in_the_next_process() -> None:
    """P5: a prompt that was accepted and could not begin before the drain begins by itself afterwards."""
    home = Home()
    gate = asyncio.Event()
    home.model.lines.append([gate, "first"])
    conversation = await home.create()
    await home.until(conversation, "step.started")
    await home.say(conversation, c.Prompt(id="p2", text="next"))
    draining = asyncio.create_task(home.directory.drain(20))
    await asyncio.sleep(0.1)
    gate.set()
    await draining
    assert (await home.types(conversation))[-1] == "actor.drained"
    home.boot()
    await home.directory.start()
    await home.until(conversation, "run.completed", times=2, seconds=60)


@pytest.mark.parametrize("approved", [True, False])
@virtual
async def test_a_decision_during_the_drain_is_carried_out_by_the_next_process(approved: bool) -> None:
    """P5, §11: nobody has to open the conversation first."""
    home = Home(Agent("a", tools=[guarded, slow]))
    home.model.lines.extend([calls("slow"), calls("guarded")])
    keeps_it_busy, conversation = await home.create(), await home.create()
    await home.until(keeps_it_busy, "tool.started")
    request = await home.until(conversation, "approval.requested")
    draining = asyncio.create_task(home.directory.drain(90))
    await asyncio.sleep(1)
    where = {"run": request["run"], "call": ["k1"], "digest": request["digest"]}
    decide = c.Approve(id="d", **where) if approved else c.Deny(id="d", **where)
    await home.say(conversation, decide)
    await draining
    assert "tool.started" not in await home.types(conversation)
    home.boot()
    await home.directory.start()
    await home.until(conversation, "run.completed", seconds=60)


@virtual
async def test_an_unfinished_run_is_found_by_its_item() -> None:
    """What recovery asks for is kept beside the log, and is true at every commit."""
    home = Home(Agent("a", tools=[guarded]))
    home.model.lines.append(calls("guarded"))
    conversation = await home.create()
    await home.until(conversation, "step.started")
    assert await home.log.log.unfinished(0) == [conversation]
    await home.until(conversation, "archive.flushed")
    assert await home.log.log.unfinished(10**15) == []
    state: State = await home.state(conversation)
    assert state.status == "waiting"
