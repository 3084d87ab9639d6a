"""The feed: what all readers share. DESIGN.md §1.4, §1.5; PROTOCOL.md §1.1, §3.3; P2, P4, P8."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from app.actor import feed as actor_feed
from app.actor.feed import FEED_BYTES_MAX, FRAMES_MAX, Feed
from app.actor.pages import PAGES_BYTES_MAX, Pages
from app.actor.records import Record
from app.core.commands import Hint
from app.store.event_log import Page, Unavailable
from app.wire.frames import standing
from app.wire.reader import Behind, Reader
from tests.actor.home import Home, virtual
from tests.simulation.screen import Screen

FRAME_BYTES = 2_000


async def nothing(after: int) -> Page:
    raise AssertionError("nobody is behind")


def feed(head: int = 0, frame_bytes: int = FRAME_BYTES) -> Feed:
    return Feed("L1", head, frame_bytes, Pages(nothing, frame_bytes))


def record(seq: int, owner: str | None = None, size: int = 0) -> Record:
    return Record(seq, json.dumps({"seq": seq, "x": "x" * size}), owner)


def read(one: Feed, after: int) -> list[int]:
    """The seqs that a reader at this cursor gets, frame after frame."""
    seen = []
    while (frame := one.frame(after)) is not None:
        through, text = frame
        told = json.loads(text)
        assert (told["after"], told["through"]) == (after, through) and through > after
        seen += [event["seq"] for event in told["events"]]
        after = through
    assert after == one.head
    return seen


def test_a_reader_gets_everything_after_its_cursor_in_order() -> None:
    """P2, P4: from every cursor, split at the same places or others."""
    one = feed(frame_bytes=400)
    one.publish([record(seq, size=seq * 7 % 90) for seq in range(1, 40)], frozenset(), 39)
    for after in range(40):
        assert read(one, after) == list(range(after + 1, 40))


def test_a_frame_is_built_once_for_all_who_stand_there() -> None:
    """DESIGN §1.5, FAULTS 32: shared by all its readers; a new one after every publication."""
    one = feed()
    one.publish([record(1), record(2)], frozenset(), 2)
    first = one.frame(0)
    assert first is one.frame(0)
    one.publish([record(3)], frozenset(), 3)
    assert one.frame(0) != first and read(one, 0) == [1, 2, 3]


def test_superseded_pieces_are_left_out() -> None:
    """PROTOCOL §3.3: a cursor among them gets the superseding event; the numbers are skipped."""
    one = feed()
    one.publish([record(1), record(2, "a"), record(3, "b"), record(4, "a")], frozenset(), 4)
    one.publish([record(5)], frozenset({"a"}), 5)
    assert [read(one, after) for after in (0, 1, 2, 3, 4)] == [[1, 3, 5], [3, 5], [3, 5], [5], [5]]


def test_a_head_beyond_the_last_event_is_reached() -> None:
    """PROTOCOL §1.1: `through` may be greater than the last event's seq; also with no event at all."""
    one = feed()
    one.publish([record(1)], frozenset(), 3)
    assert one.frame(0) == (3, '{"type":"events","after":0,"through":3,"events":[' + record(1).text + "]}")
    assert json.loads((one.frame(1) or (0, ""))[1])["events"] == []
    assert one.frame(3) is None


def test_memory_is_bounded_and_the_floor_says_what_is_gone() -> None:
    """P8: the newest records only; whoever is before the floor reads the log."""
    one = feed()
    for seq in range(1, 600):
        one.publish([record(seq, size=1_000)], frozenset(), seq)
    assert sum(len(r.text) for r in one._records) <= FEED_BYTES_MAX
    assert one._bytes == sum(len(r.text) for r in one._records)
    assert 0 < one.floor < one.head and one._records[0].seq == one.floor + 1
    assert read(one, one.floor) == list(range(one.floor + 1, 600))


def test_an_event_larger_than_all_that_is_kept() -> None:
    """P8: it is told from the log, and the feed goes on."""
    one = feed()
    one.publish([record(1, size=FEED_BYTES_MAX)], frozenset(), 1)
    assert one.floor == 1 == one.head and one.frame(1) is None
    one.publish([record(2)], frozenset(), 2)
    assert read(one, 1) == [2]


def test_many_cursors_do_not_fill_the_memory() -> None:
    """P8: frames are kept for whoever else stands there, a few of them."""
    one = feed()
    one.publish([record(seq) for seq in range(1, 500)], frozenset(), 499)
    for after in range(499):
        one.frame(after)
        assert len(one._frames) <= FRAMES_MAX


def test_random_publications_from_random_cursors() -> None:
    """P2, P4: whatever was superseded or dropped meanwhile."""
    chance = random.Random(7)
    for _ in range(50):
        one, head, alive = feed(frame_bytes=chance.choice([300, 5_000])), 0, dict[int, str | None]()
        for _ in range(60):
            gone = frozenset({chance.choice("abc")}) if chance.random() < 0.2 else frozenset[str]()
            alive = {seq: owner for seq, owner in alive.items() if owner not in gone}
            fresh = [record(head + n, chance.choice([None, "a", "b"])) for n in range(1, chance.randrange(2, 5))]
            fresh = [r for r in fresh if r.owner not in gone]
            head += chance.randrange(4, 6)
            alive |= {r.seq: r.owner for r in fresh}
            one.publish(fresh, gone, head)
            after = chance.randrange(head + 1)
            assert read(one, after) == [seq for seq in sorted(alive) if seq > after]


def test_closing_wakes_and_leaving_ends_it() -> None:
    one = feed()
    woken: list[str] = []
    stay, go = (lambda: woken.append("stay")), (lambda: woken.append("go"))
    one.join(stay)
    one.join(go)
    assert one.watched
    one.leave(go)
    one.leave(go)
    one.publish([record(1)], frozenset(), 1)
    one.close(4510)
    assert woken == ["stay", "stay"] and one.closed == 4510
    one.leave(stay)
    assert not one.watched


def test_who_leaves_while_being_woken_breaks_nothing() -> None:
    one = feed()

    def everybody_leaves() -> None:
        for wake in list(one._wakes):
            one.leave(wake)

    one.join(everybody_leaves)
    one.join(lambda: None)
    one.publish([record(1)], frozenset(), 1)
    assert not one.watched


# --- old pages


class Shelf:
    """A log of numbered events, read in pages of ten."""

    def __init__(self, head: int, text: str = '{{"seq":{0}}}') -> None:
        self.head = head
        self.text = text
        self.reads: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, after: int) -> Page:
        self.reads.append(after)
        head = self.head
        await self.gate.wait()
        seqs = list(range(after + 1, min(after + 11, head + 1)))
        parts = [([seq], self.text.format(seq)) for seq in seqs]
        return Page(after, seqs[-1] if seqs else after, head, parts)


@virtual
async def test_a_page_is_read_once_for_all_who_come_back_at_once() -> None:
    """FAULTS 32: a thousand reconnects share the replay."""
    shelf = Shelf(100)
    shelf.gate.clear()
    pages = Pages(shelf.read, FRAME_BYTES)
    waiting = [asyncio.create_task(pages.after(0)) for _ in range(1_000)]
    await asyncio.sleep(1)
    shelf.gate.set()
    frames = await asyncio.gather(*waiting)
    assert shelf.reads == [0] and len(set(frames)) == 1 and frames[0][0] == 10
    assert await pages.after(0) == frames[0] and shelf.reads == [0]


@virtual
async def test_the_last_page_is_not_kept() -> None:
    """P4: it is still growing."""
    shelf = Shelf(12)
    pages = Pages(shelf.read, FRAME_BYTES)
    assert (await pages.after(10))[0] == 12
    shelf.head = 14
    assert (await pages.after(10))[0] == 14


@virtual
async def test_what_supersedes_empties_the_pages() -> None:
    """PROTOCOL §3.3: also one that was being read at that moment is not kept."""
    shelf = Shelf(100)
    pages = Pages(shelf.read, FRAME_BYTES)
    await pages.after(0)
    shelf.gate.clear()
    late = asyncio.create_task(pages.after(20))
    await asyncio.sleep(1)
    pages.clear()
    shelf.gate.set()
    await late
    shelf.reads.clear()
    await pages.after(0)
    await pages.after(20)
    assert shelf.reads == [0, 20]


@virtual
async def test_what_is_asked_for_as_of_a_head_is_no_older() -> None:
    """PROTOCOL §3.3: neither what is kept nor what is just being read; the next one finds the newer page."""
    shelf = Shelf(100)
    pages = Pages(shelf.read, FRAME_BYTES)
    assert (await pages.after(0)).head == 100
    shelf.gate.clear()
    older = asyncio.create_task(pages.after(20))
    await asyncio.sleep(1)
    shelf.head = 101
    newer = [asyncio.create_task(pages.after(cursor, 101)) for cursor in (0, 20, 20)]
    await asyncio.sleep(1)
    shelf.gate.set()
    assert (await older).head == 100
    assert [frame.head for frame in await asyncio.gather(*newer)] == [101] * 3
    assert shelf.reads == [0, 20, 0, 20]
    assert (await pages.after(0)).head == (await pages.after(20, 101)).head == 101
    assert shelf.reads == [0, 20, 0, 20]
    assert pages._bytes == sum(len(frame.text) for frame in pages._frames.values())


@virtual
async def test_a_page_that_cannot_be_read_is_asked_for_again() -> None:
    shelf = Shelf(100)

    async def failing(after: int) -> Page:
        if not shelf.reads:
            shelf.reads.append(after)
            raise Unavailable("busy")
        return await shelf.read(after)

    pages = Pages(failing, FRAME_BYTES)
    with pytest.raises(Unavailable):
        await pages.after(0)
    assert (await pages.after(0))[0] == 10


@virtual
async def test_a_frame_of_the_log_keeps_to_its_bytes() -> None:
    """PROTOCOL §1.1: a store counts characters, a frame bytes: four for one, where people like pictures."""
    shelf = Shelf(100, '{{"seq":{0},"text":"' + "🎉" * 100 + '"}}')
    pages = Pages(shelf.read, FRAME_BYTES)
    cursor, seen = 0, list[int]()
    while cursor < 100:
        through, text, _ = await pages.after(cursor)
        assert len(text.encode()) <= FRAME_BYTES and through > cursor
        seen += [event["seq"] for event in json.loads(text)["events"]]
        cursor = through
    assert seen == list(range(1, 101))


@virtual
async def test_the_memory_of_pages_is_bounded() -> None:
    """P8."""
    shelf = Shelf(100_000, '{{"seq":{0},"text":"' + "x" * 9_000 + '"}}')
    pages = Pages(shelf.read, 1_000_000)
    for after in range(0, 2_000, 10):
        await pages.after(after)
        assert pages._bytes == sum(len(frame.text) for frame in pages._frames.values()) <= PAGES_BYTES_MAX
    assert pages._frames


# --- a page and the feed


async def shown(one: Reader, feed: Feed) -> list[dict[str, Any]]:
    """The events that a reader is sent now, as a follower would bring them."""
    events = []
    while (frame := one.pull(feed)) is not None:
        if isinstance(frame, Behind):
            frame = one.take(*await feed.pages.after(frame.after, frame.head))
        events += json.loads(frame).get("events", [])
    return events


@virtual
async def test_a_reader_that_comes_between_a_commit_and_its_publication() -> None:
    """PROTOCOL §3.3: a page knows by then what is superseded, the feed does not: no piece without the one before it."""
    home = Home()
    home.boot(frame_bytes_max=3_000)
    go_on, end = asyncio.Event(), asyncio.Event()
    home.model.lines.append(["one ", go_on, "two ", end])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actor_feed, "FEED_BYTES_MAX", 2_000)
        conversation = await home.create()
        first = await home.until(conversation, "text.streamed")
        await home.say(conversation, Hint(id="h", text="x" * 2_500))
        go_on.set()
        second = await home.until(conversation, "text.streamed", times=2)
        feed = await home.directory.feed(conversation)
        assert first["seq"] < feed.floor < second["seq"], "the first piece is in the log only, the second in the feed"
        readers = [Reader(standing(await home.state(conversation), feed.log), 0, None) for _ in range(2)]
        home.log.answers.clear()
        end.set()
        await home.until(conversation, "model.replied")
        screen, seen = Screen(), list[dict[str, Any]]()
        for event in await shown(readers[0], feed):
            screen.take(event)
            seen.append(event)
        assert "model.replied" in [event["type"] for event in seen] and feed.head < readers[0].cursor
        home.log.answers.set()
        await home.until(conversation, "run.completed")
        await home.until(conversation, "archive.flushed")
        await home.state(conversation)
        seen += await shown(readers[0], feed)
        assert seen == await shown(readers[1], feed) == await home.events(conversation)
