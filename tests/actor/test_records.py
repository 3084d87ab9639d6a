"""Events become records and rows of one append: PROTOCOL.md §3.3, DESIGN.md §6, event_log.py's contract."""

from __future__ import annotations

import random

import pytest

from app.actor.records import pack
from app.core import events as e
from app.core.codec import decode, encode
from app.store.event_log import Append, Item
from app.store.log_memory import MemoryLog
from app.store.rows import check, placed
from tests.core.world import World

USAGE = e.Usage(input=1, output=1)


def text(seq: int, step: int = 1, **fields: object) -> e.Event:
    return e.TextStreamed(seq=seq, run="r", step=step, attempt=1, offset=0, text="t", **fields)  # type: ignore[arg-type]


def reply(seq: int, step: int = 1) -> e.Event:
    return e.ModelReplied(
        seq=seq, run="r", step=step, attempt=1, message="m", text="t", calls=[], finish="stop", usage=USAGE
    )


def renamed(seq: int) -> e.Event:
    return e.ConversationRenamed(seq=seq, title="t")


def progressed(seq: int, call: str = "k1") -> e.Event:
    return e.ToolProgressed(seq=seq, run="r", call=call)


def returned(seq: int, call: str = "k1") -> e.Event:
    return e.ToolReturned(seq=seq, run="r", call=call, result="x", ms=1)


@pytest.mark.parametrize(
    ("events", "rows"),
    [
        ([renamed(5)], [(5, [5], False)]),
        ([renamed(5), renamed(6)], [(6, [5, 6], False)]),
        ([text(5), text(6)], [(6, [5, 6], True)]),
        ([renamed(5), text(6), renamed(7)], [(5, [5], False), (6, [6], True), (7, [7], False)]),
        ([text(5), progressed(6)], [(5, [5], True), (6, [6], True)]),
        ([text(5), text(6), reply(7)], [(7, [7], False)]),
        ([renamed(5), text(6), reply(7)], [(7, [5, 7], False)]),
        ([reply(5), renamed(6), text(7, step=2)], [(6, [5, 6], False), (7, [7], True)]),
        ([text(5), text(6, step=2), reply(7)], [(6, [6], True), (7, [7], False)]),
        ([progressed(5), progressed(6, "k2"), returned(7)], [(6, [6], True), (7, [7], False)]),
        ([renamed(5), progressed(6), returned(7), progressed(8, "k2")], [(7, [5, 7], False), (8, [8], True)]),
    ],
)
def test_rows_hold_lasting_events_or_pieces_of_one_owner(
    events: list[e.Event], rows: list[tuple[int, list[int], bool]]
) -> None:
    """DESIGN §6: never both; what the same append supersedes is never stored, its number is skipped."""
    batch = pack(events)
    assert [(row.through, list(row.seqs), row.owner is not None) for row in batch.rows] == rows
    assert [record.seq for record in batch.records] == [seq for _, seqs, _ in rows for seq in seqs]
    assert batch.rows[-1].through == events[-1].seq
    assert batch.lasting == any(not pieces for _, _, pieces in rows)
    check(Append("c", 4, 1, batch.rows, superseded=tuple(batch.superseded)))


def test_pieces_of_equal_calls_at_two_levels_have_two_owners() -> None:
    """SEMANTICS §5: equal call ids at two levels must not collide."""
    inner = e.ToolProgressed(seq=6, run="r", path=("k0",), call="k1")
    batch = pack([progressed(5), inner, returned(7)])
    assert [list(row.seqs) for row in batch.rows] == [[6], [7]]


def test_an_event_is_encoded_once() -> None:
    """DESIGN §1.5: the same text in the row and in the record."""
    batch = pack([renamed(5), text(6)])
    assert [record.text for record in batch.records] == [t for row in batch.rows for t in row.texts]
    assert batch.records[0].text == encode(renamed(5))


async def test_what_random_worlds_decide_can_be_stored_and_read_back() -> None:
    """P1, P4: every batch of every size is an append that a log takes; what is read is what survives."""
    for seed in range(12):
        chance = random.Random(seed)
        world = World(chance)
        for _ in range(150):
            world.step()
        log = MemoryLog()
        item = Item("c", "a", "", "ann", "idle", 0, 0)
        start = 0
        superseded: set[str] = set()
        while start < len(world.log):
            batch = pack(world.log[start : start + chance.randrange(1, 9)])
            append = Append("c", start, 1, batch.rows, superseded=tuple(batch.superseded))
            if start:
                await log.append(append)
            else:
                await log.create(Append("c", 0, 1, batch.rows, item=item), "L1", "ann")
            superseded |= batch.superseded
            start = [row.through for _, row in placed(append)][-1]
        page = await log.read("c", 0, 10**9)
        assert page.through == page.head == len(world.log)
        for seq, stored in zip(page.seqs, page.texts, strict=True):
            assert decode(stored) == decode(encode(world.log[seq - 1]))
        missing = [event for event in world.log if event.seq not in set(page.seqs)]
        assert all(e.owner_of(event) in superseded for event in missing)
        assert all(event.cause is None for event in missing), "PROTOCOL §3.3: none with a cause is superseded"
