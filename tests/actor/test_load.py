"""Activation of long logs: from a snapshot and the tail; from the log alone wherever there is a doubt. FAULTS 29."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.actor import load, sweeping
from app.actor.moving import Moving
from app.actor.sweeping import SWEEP_SECONDS
from app.agent import Agent, tool
from app.core import commands as c
from app.core import context
from app.core import events as e
from app.core.apply import fold
from app.core.codec import decode
from app.core.errors import Corrupt
from app.core.events import Call
from app.core.reading import find
from app.core.snapshot import forget, parts
from app.core.state import State
from app.store.event_log import EventLog, Snapshot, Unavailable
from app.store.log_memory import MemoryLog
from tests.actor.home import Home, Json, MoodyLog, calls, virtual
from tests.benchmarks.long_log import CONVERSATION, Writing, write
from tests.store.builders import opened

EVENTS = 60_000
Patch = pytest.MonkeyPatch


@pytest.fixture
def folded(monkeypatch: Patch) -> list[int]:
    """The seqs of all events that activations fold."""
    seqs: list[int] = []

    def counted(text: str) -> Any:
        event = decode(text)
        seqs.append(event.seq)
        return event

    monkeypatch.setattr(load, "decode", counted)
    return seqs


def few(patch: Patch, events: int = 5) -> None:
    """Logs are long from so many events on."""
    patch.setattr(load, "SNAPSHOT_EVENTS", events)
    patch.setattr(sweeping, "SNAPSHOT_EVENTS", events)


def lean(state: State) -> State:
    forget(state)
    return state


async def written(events: int = 300) -> tuple[MemoryLog, Writing]:
    """A log in memory, and whoever can go on with it."""
    log = MemoryLog()
    return log, await write(log, events)


async def said(log: EventLog, conversation: str = CONVERSATION) -> list[str]:
    return (await log.read(conversation, 0, 10**9)).texts


# --- how much is folded


async def test_a_long_log_is_folded_once(tmp_path: Path, folded: list[int]) -> None:
    """FAULTS 29: the first activation folds it whole; after that only what has come since, whatever was before it."""
    async with opened(tmp_path) as log:
        writing = await write(log, EVENTS)
    async with opened(tmp_path) as log:
        id, first = await load.load(log, CONVERSATION)
        assert id == "L" and len(folded) == writing.state.seq >= EVENTS
    async with opened(tmp_path) as log:
        folded.clear()
        id, again = await load.load(log, CONVERSATION)
        assert (id, again) == ("L", first) and folded == []
        head = again.seq
        await write(log, 1_000, writing)
    async with opened(tmp_path) as log:
        _, longer = await load.load(log, CONVERSATION)
        assert folded == list(range(head + 1, writing.state.seq + 1)), "the tail, once"
        _, whole = await load.load(log, CONVERSATION, whole=True)
        assert lean(longer) == lean(whole)
        assert len(longer.history) < EVENTS / 10, "and what is no longer told does not come along"


async def test_a_tail_that_has_grown_long_gives_a_newer_snapshot(folded: list[int], monkeypatch: Patch) -> None:
    """FAULTS 29: what an activation folds stays bounded, however long the log gets."""
    few(monkeypatch, 200)
    log, writing = MemoryLog(), None
    for _ in range(12):
        writing = await write(log, 130, writing)
        await load.load(log, CONVERSATION)
        assert len(folded) < 400
        folded.clear()


async def test_a_short_log_has_none(monkeypatch: Patch) -> None:
    """DESIGN §6: nor does its activation look for one."""
    log, _ = await written(300)
    moody: Any = MoodyLog(log)
    await load.load(moody, CONVERSATION)
    assert set(moody.calls) == {"head", "read"} and await log.snapshot(CONVERSATION) is None


async def test_nothing_is_held_up_meanwhile(monkeypatch: Patch) -> None:
    """FAULTS 29, 25: between any two parts, coming and going, everybody else has their turn."""
    few(monkeypatch, 3_000)
    log, writing = await written(6_000)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await asyncio.sleep(0)
    expected = len(list(parts(writing.state)))
    assert expected > 3
    for _ in range(2):
        turns = 0
        await load.load(log, CONVERSATION)
        assert turns >= expected
    beside.cancel()


# --- what is believed


def _of_another_log(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, log="another")


def _of_other_code(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, stamp="0" * 64)


def _ahead(snapshot: Snapshot) -> Snapshot:
    state = State(seq=snapshot.through + 10_000)
    return replace(snapshot, through=state.seq, state=msgspec.msgpack.encode(list(parts(state))))


def _older_than_it_says(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, through=snapshot.through - 7)


def _cut(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, state=snapshot.state[:-20])


def _changed(snapshot: Snapshot) -> Snapshot:
    middle = len(snapshot.state) // 2
    return replace(snapshot, state=snapshot.state[:middle] + b"\0\0\0\0" + snapshot.state[middle + 4 :])


def _of_nothing(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, state=msgspec.msgpack.encode([]))


def _something_else(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, state=b"no msgpack")


@pytest.mark.parametrize(
    "doubt",
    [_of_another_log, _of_other_code, _ahead, _older_than_it_says, _cut, _changed, _of_nothing, _something_else],
    ids=lambda doubt: doubt.__name__.strip("_"),
)
async def test_what_is_in_doubt_is_not_believed(
    doubt: Callable[[Snapshot], Snapshot], folded: list[int], monkeypatch: Patch
) -> None:
    """FAULTS 29, 102: the log is folded whole then, and leaves a snapshot that can be believed."""
    few(monkeypatch)
    log, writing = await written()
    await load.load(log, CONVERSATION)
    snapshot = await log.snapshot(CONVERSATION)
    assert snapshot is not None and snapshot.through == writing.state.seq
    await write(log, 25, writing)
    await log.save_snapshot(CONVERSATION, doubt(snapshot))
    folded.clear()
    _, found = await load.load(log, CONVERSATION)
    assert folded == list(range(1, writing.state.seq + 1)), "all of it, once"
    await believed_again(log, found, folded)


async def test_a_snapshot_that_the_log_contradicts_is_dropped(folded: list[int], monkeypatch: Patch) -> None:
    """FAULTS 29: it is the log that is true."""
    few(monkeypatch)
    log, _ = await written()
    events = [decode(text) for text in await said(log)]
    started = max(event.seq for event in events if isinstance(event, e.ToolStarted))
    state = fold(events[:started])
    assert state.run is not None
    state.run.top.batch.clear()
    wrong = Snapshot("L", started, load.STAMP, msgspec.msgpack.encode(list(parts(state))))
    await log.save_snapshot(CONVERSATION, wrong)
    _, found = await load.load(log, CONVERSATION)
    await believed_again(log, found, folded)


async def believed_again(log: EventLog, found: State, folded: list[int]) -> None:
    """The state is right, and the new snapshot spares the next activation the work."""
    _, whole = await load.load(log, CONVERSATION, whole=True)
    assert found == lean(whole)
    folded.clear()
    assert (await load.load(log, CONVERSATION))[1] == found and folded == []


async def test_a_damaged_log_is_no_better_with_a_snapshot(monkeypatch: Patch) -> None:
    """FAULTS 18: nor is it guessed at."""
    few(monkeypatch)
    log, writing = await written()
    await load.load(log, CONVERSATION)
    await write(log, 25, writing)
    stored = log._conversations[CONVERSATION].lasting
    stored[-1] = replace(stored[-1], row=replace(stored[-1].row, texts=("{",) * len(stored[-1].row.texts)))
    with pytest.raises(Corrupt):
        await load.load(log, CONVERSATION)


async def test_a_store_that_takes_no_snapshot_harms_nobody(folded: list[int], monkeypatch: Patch) -> None:
    """FAULTS 14, 29: the state is there all the same."""
    few(monkeypatch)
    log, writing = await written()
    moody: Any = MoodyLog(log)
    moody.down = True
    _, found = await load.load(moody, CONVERSATION)
    assert found.seq == writing.state.seq and "save_snapshot" in moody.calls
    assert await log.snapshot(CONVERSATION) is None
    moody.down = False
    await believed_again(moody, (await load.load(moody, CONVERSATION))[1], folded)


# --- in a house


@tool(rerun="safe")
async def read(size: int = 2_000) -> str:
    """Reads a lot."""
    return "0123456789 line\n" * (size // 16)


@tool(rerun="safe", timeout=1_000)
async def patient() -> str:
    """Works for a minute."""
    await asyncio.sleep(60)
    return "slept"


AGENT = Agent("a", instructions="Read.", tools=[read, patient])


@virtual
async def test_what_grows_long_while_it_is_in_memory_leaves_one_too() -> None:
    """FAULTS 29: also where the process is killed before anybody else has folded it, and in the middle of a run."""
    with pytest.MonkeyPatch.context() as patch:
        few(patch, 2)
        home = Home(AGENT)
        await home.directory.start()
        home.model.lines.append(calls("patient"))
        conversation = await home.create()
        await home.until(conversation, "tool.started")
        await asyncio.sleep(SWEEP_SECONDS + 1)
        snapshot = await home.log.log.snapshot(conversation)
        assert snapshot is not None
        began = await home.events(conversation)
        assert snapshot.through == began[-1]["seq"] and began[-1]["type"] == "tool.started"
        home.crash()
        home.boot()
        await home.directory.start()
        await home.until(conversation, "run.completed")
        events = await home.events(conversation)
        assert events[: len(began)] == began
        await home.directory.drain(1)
        _, state = await load.load(home.log.log, conversation, whole=True)
        assert lean(state) == lean(fold(map(decode, await said(home.log.log, conversation))))
        assert [event["type"] for event in events].count("tool.returned") == 1


async def summarised(patch: Patch) -> tuple[Home, str, str]:
    """A conversation whose first run has been summarised, as its next owner has it from a snapshot."""
    few(patch)
    patch.setattr(context, "INDEX_LINES_MAX", 1)
    home = Home(AGENT, context_tokens=2_000)
    home.model.lines.extend([["thinking aloud " * 60, *calls("read", first=number)] for number in range(1, 4)])
    home.model.lines.extend([["It was read, again and again."], ["done"]])
    conversation = await home.create()
    run = (await home.until(conversation, "run.completed"))["run"]
    assert "context.compacted" in await home.types(conversation)
    await home.directory.drain(1)
    home.boot()
    await home.directory.start()
    for _ in range(2):
        await load.load(home.log.log, conversation)
    state = await home.state(conversation)
    assert state.context.forgotten and len(state.history) < len((await whole(home, conversation)).history)
    return home, conversation, run


async def whole(home: Home, conversation: str) -> State:
    return (await load.load(home.log.log, conversation, whole=True))[1]


@virtual
async def test_what_a_snapshot_has_forgotten_can_be_read_back() -> None:
    """003-5, FAULTS 29: the original is in the log; an activation from a snapshot knows no less than another."""
    with pytest.MonkeyPatch.context() as patch:
        home, conversation, run = await summarised(patch)
        assert find((await home.state(conversation)).history, f"{run}/k1") is None
        asked = json.dumps({"reference": f"{run}/k1", "offset": 16, "length": 15})
        none = json.dumps({"reference": f"{run}/none"})
        home.model.lines.append(
            [Call(call="b1", tool="read_result", arguments=asked), Call(call="b2", tool="read_result", arguments=none)]
        )
        await home.say(conversation, c.Prompt(id="p2", text="Read it again."))
        await home.until(conversation, "run.completed", times=2)
        results: list[Json] = [each for each in await home.events(conversation) if each.get("call") in ("b1", "b2")]
        texts = {
            each["call"]: each.get("result") or each["error"]["message"]
            for each in results
            if each["type"] != "tool.started"
        }
        assert texts["b1"].endswith("\n0123456789 line") and "Nothing is kept" in texts["b2"]


@virtual
async def test_the_output_of_a_run_has_all_of_its_messages() -> None:
    """§6, FAULTS 29: also where the state has forgotten them."""
    with pytest.MonkeyPatch.context() as patch:
        home, conversation, run = await summarised(patch)
        moving = Moving(home.directory, home.log, home.rules, b"s" * 32)
        output = await moving.output(conversation, run)
        assert output["result"] == "done"
        asked = [call["id"] for message in output["messages"] for call in message.get("tool_calls", [])]
        assert asked == ["k1", "k2", "k3"]


@virtual
async def test_a_store_that_cannot_answer_stops_no_sweep() -> None:
    """FAULTS 14: there is another one in five seconds."""
    with pytest.MonkeyPatch.context() as patch:
        few(patch, 2)
        home = Home(AGENT)
        await home.directory.start()
        home.model.lines.append(calls("patient"))
        conversation = await home.create()
        await home.until(conversation, "tool.started")

        asked = []

        async def unavailable(*_: Any) -> Any:
            asked.append(True)
            raise Unavailable("the disk does not read")

        patch.setattr(MemoryLog, "head", unavailable)
        await asyncio.sleep(SWEEP_SECONDS + 1)
        patch.undo()
        assert asked, "a snapshot was due"
        await asyncio.sleep(120)
        assert home.in_memory == [], "let go by a later sweep"
