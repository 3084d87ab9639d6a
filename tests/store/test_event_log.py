"""The contract of the log, against every variant: appending, reading at any cursor, fencing, repeating, superseding."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.store.event_log import SEPARATOR, Append, EventLog, Fenced, Head, LogTorn, Row
from tests.store.builders import OWNER, first, item, make, row, text, whole


async def test_a_new_log_holds_its_first_append(log: EventLog) -> None:
    await make(log, last=3)
    assert await log.head("c") == Head("log-c", 1, 3)
    page = await log.read("c", 0, 10_000)
    assert (page.after, page.through, page.head) == (0, 3, 3)
    assert page.texts == [text(1), text(2), text(3)]


async def test_an_append_goes_after_the_head_and_its_rows_follow_each_other(log: EventLog) -> None:
    await make(log, last=2)
    rows = (row([3, 4]), row([5, 6], owner="piece"), row([7]))
    await log.append(Append("c", 2, 1, rows))
    assert (await log.head("c")).head == 7
    assert await whole(log) == [1, 2, 3, 4, 5, 6, 7]


async def test_reading_from_every_cursor_with_every_page_size(log: EventLog) -> None:
    """FAULTS 20: in pages, each with a bound; any integer up to the head is a cursor, also one inside a row."""
    await make(log, last=3)
    await log.append(Append("c", 3, 1, (row([4, 5], owner="a"), row([7], through=8), row([9], owner="a"))))
    await log.append(Append("c", 9, 1, (row([10, 12], through=13, owner="b"),)))
    surviving = [1, 2, 3, 4, 5, 7, 9, 10, 12]
    for cursor in range(-1, 14):
        for bytes_max in (0, 1, 60, 100, 10_000):
            page = await log.read("c", cursor, bytes_max)
            expected = [seq for seq in surviving if seq > cursor]
            assert page.seqs == expected[: len(page.seqs)]
            assert page.seqs or not expected
            assert len(page.seqs) == 1 or sum(map(len, page.texts)) <= bytes_max or not page.seqs
            whole_rest = len(page.seqs) == len(expected)
            assert page.through == (13 if whole_rest else page.seqs[-1])
            assert page.head == 13


async def test_a_cursor_beyond_the_head_reads_nothing(log: EventLog) -> None:
    await make(log, last=2)
    page = await log.read("c", 7, 100)
    assert (page.after, page.through, page.head, page.seqs) == (7, 7, 2, [])


async def test_an_append_without_rows_changes_the_item_only(log: EventLog) -> None:
    await make(log, last=2)
    await log.append(Append("c", 2, 1, (), item=item(title="New")))
    assert await log.item("c") == (item(title="New"), 2)
    with pytest.raises(LogTorn):
        await log.append(Append("c", 1, 1, (), item=item(title="Newer")))
    assert await log.item("c") == (item(title="New"), 2)


async def test_the_head_counts_numbers_that_were_never_stored(log: EventLog) -> None:
    await make(log, last=2)
    await log.append(Append("c", 2, 1, (row([5], through=9),)))
    assert (await log.head("c")).head == 9
    assert await whole(log) == [1, 2, 5]
    await log.append(Append("c", 9, 1, (row([10]),)))
    assert await whole(log) == [1, 2, 5, 10]


# --- fencing


async def test_a_newer_epoch_claims_and_the_old_owner_is_fenced(log: EventLog) -> None:
    await make(log, last=2)
    await log.append(Append("c", 2, 2, (row([3]),)))
    assert await log.head("c") == Head("log-c", 2, 3)
    for stale in (Append("c", 3, 1, (row([4]),)), Append("c", 2, 1, (row([3]),)), Append("c", 3, 1, (), item=item())):
        with pytest.raises(Fenced):
            await log.append(stale)
    assert await whole(log) == [1, 2, 3]


async def test_an_old_owner_whose_append_came_through_before_the_claim_is_fenced_all_the_same(log: EventLog) -> None:
    await make(log, last=2)
    late = Append("c", 2, 1, (row([3]),))
    await log.append(late)
    await log.append(Append("c", 3, 2, (row([4]),)))
    with pytest.raises(Fenced):
        await log.append(late)


async def test_a_claim_that_does_not_follow_the_head_is_torn_and_claims_nothing(log: EventLog) -> None:
    await make(log, last=2)
    for after in (0, 1, 3):
        with pytest.raises(LogTorn):
            await log.append(Append("c", after, 5, (row([after + 1]),)))
    assert await log.head("c") == Head("log-c", 1, 2)


async def test_racing_claims_have_one_winner(log: EventLog) -> None:
    await make(log, last=2)
    rows = (Row(3, (3,), ("same",)),)
    claims = [log.append(Append("c", 2, epoch, rows)) for epoch in (2, 2, 3)]
    outcomes = await asyncio.gather(*claims, return_exceptions=True)
    # Two with the same epoch and the same bytes cannot be told from a repeat; the newest epoch comes too late.
    assert outcomes[:2] == [None, None]
    assert isinstance(outcomes[2], LogTorn)
    others = [log.append(Append("c", 3, 4, (Row(4, (4,), (f"from {who}",)),))) for who in range(4)]
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert [isinstance(outcome, LogTorn) for outcome in outcomes] == [False, True, True, True]


# --- torn, repeated


async def test_an_append_that_does_not_follow_the_head_is_torn(log: EventLog) -> None:
    await make(log, last=2)
    for after in (0, 1, 3, 9):
        with pytest.raises(LogTorn):
            await log.append(Append("c", after, 1, (row([after + 1]),)))
    assert await whole(log) == [1, 2]


async def test_the_same_append_again_succeeds_without_effect(log: EventLog) -> None:
    await make(log, last=2)
    append = Append("c", 2, 1, (row([3, 5], through=6), row([7], owner="a"), row([8])), item=item(title="New"))
    await log.append(append)
    await log.append(append)
    assert (await log.head("c")).head == 8
    assert await whole(log) == [1, 2, 3, 5, 7, 8]
    await log.append(Append("c", 8, 1, (row([9]),)))
    await log.append(append)
    assert await whole(log) == [1, 2, 3, 5, 7, 8, 9]


@pytest.mark.parametrize(
    "rows",
    [
        (Row(3, (3,), ("other bytes",)),),
        (row([3], through=4),),
        (row([3]), row([4])),
        (row([3], owner="a"),),
    ],
    ids=["bytes", "through", "more rows", "pieces"],
)
async def test_another_append_at_the_same_place_is_torn(log: EventLog, rows: tuple[Row, ...]) -> None:
    await make(log, last=2)
    await log.append(Append("c", 2, 1, (row([3]),)))
    with pytest.raises(LogTorn):
        await log.append(Append("c", 2, 1, rows))
    assert await whole(log) == [1, 2, 3]


async def test_a_refused_append_leaves_nothing_behind(log: EventLog) -> None:
    await make(log, last=2)
    bad = Append("c", 1, 1, (row([2]), row([3])), item=item(title="Bad"), runs=("bad",), superseded=("a",))
    with pytest.raises(LogTorn):
        await log.append(bad)
    assert await log.item("c") == (item(), 2)
    assert await log.find_run("bad") is None


async def test_one_bad_append_fails_alone(log: EventLog) -> None:
    names = [f"c{number}" for number in range(20)]
    await asyncio.gather(*(make(log, name, last=2) for name in names))
    appends = [
        log.append(Append(name, 7 if name == "c9" else 2, 1, (row([3 if name != "c9" else 8]),))) for name in names
    ]
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert [isinstance(outcome, LogTorn) for outcome in outcomes] == [name == "c9" for name in names]
    for name in names:
        assert await whole(log, name) == ([1, 2] if name == "c9" else [1, 2, 3])


@pytest.mark.parametrize(
    "append",
    [
        Append("c", 2, 1, (Row(3, (), ()),)),
        Append("c", 2, 1, (Row(3, (3,), ()),)),
        Append("c", 2, 1, (Row(2, (2,), ("x",)),)),
        Append("c", 2, 1, (Row(3, (4,), ("x",)),)),
        Append("c", 2, 1, (Row(4, (4, 3), ("x", "y")),)),
        Append("c", 2, 1, (Row(4, (3, 3), ("x", "y")),)),
        Append("c", 2, 1, (Row(3, (3,), (f"x{SEPARATOR}y",)),)),
        Append("c", 2, 1, (Row(3, (3,), ("x",), "a"),), superseded=("a",)),
        Append("c", 2, 1, (), superseded=("a",)),
        Append("c", 2, 1, (row([3]),), item=item("d")),
    ],
)
async def test_what_no_log_may_hold_is_a_broken_caller(log: EventLog, append: Append) -> None:
    await make(log, last=2)
    with pytest.raises(ValueError, match="c"):
        await log.append(append)
    assert await whole(log) == [1, 2]


async def test_an_unknown_conversation_is_a_key_error(log: EventLog) -> None:
    for call in (
        log.append(Append("nobody", 0, 1, (row([1]),))),
        log.head("nobody"),
        log.read("nobody", 0, 100),
        log.item("nobody"),
        log.delete("nobody", 5),
        log.restore("nobody", 5),
        log.keep("nobody", "ref", "text"),
        log.kept("nobody", "ref"),
        log.kept_refs("nobody"),
    ):
        with pytest.raises(KeyError):
            await call


# --- superseding


async def test_pieces_are_gone_with_the_append_that_supersedes_them(log: EventLog) -> None:
    await make(log, last=2)
    await log.append(Append("c", 2, 1, (row([3, 4], owner="a"),)))
    await log.append(Append("c", 4, 1, (row([5], owner="b"), row([6, 7], owner="a"))))
    assert await whole(log) == [1, 2, 3, 4, 5, 6, 7]
    await log.append(Append("c", 7, 1, (row([8]),), superseded=("a",)))
    assert await whole(log) == [1, 2, 5, 8]
    await log.append(Append("c", 8, 1, (row([9]),), superseded=("b", "never seen")))
    assert await whole(log) == [1, 2, 8, 9]
    assert (await log.head("c")).head == 9


async def test_a_reader_among_superseded_pieces_gets_what_supersedes_them(log: EventLog) -> None:
    await make(log, last=2)
    for seq in range(3, 9):
        await log.append(Append("c", seq - 1, 1, (row([seq], owner="a"),)))
    page = await log.read("c", 2, 60)
    assert page.seqs == [3, 4] and page.through == 4
    await log.append(Append("c", 8, 1, (row([9]),), superseded=("a",)))
    page = await log.read("c", page.through, 60)
    assert (page.seqs, page.through, page.head) == ([9], 9, 9)


async def test_a_refused_append_supersedes_nothing(log: EventLog) -> None:
    await make(log, last=2)
    await log.append(Append("c", 2, 1, (row([3], owner="a"),)))
    with pytest.raises(LogTorn):
        await log.append(Append("c", 2, 1, (row([3]),), superseded=("a",)))
    assert await whole(log) == [1, 2, 3]


async def test_pieces_of_one_conversation_are_not_anothers(log: EventLog) -> None:
    """The same owner's name in two conversations is two owners."""
    for name in ("c", "d"):
        await make(log, name, last=2)
        await log.append(Append(name, 2, 1, (row([3], owner="a"),)))
    await log.append(Append("c", 3, 1, (row([4]),), superseded=("a",)))
    assert await whole(log, "c") == [1, 2, 4]
    assert await whole(log, "d") == [1, 2, 3]


async def test_a_repeat_is_known_only_while_its_rows_are_stored(log: EventLog) -> None:
    await make(log, last=2)
    pieces = Append("c", 2, 1, (row([3], owner="a"),))
    await log.append(pieces)
    await log.append(Append("c", 3, 1, (row([4]),), superseded=("a",)))
    with pytest.raises(LogTorn):
        await log.append(pieces)


# --- appending and reading at the same time


async def test_a_reader_beside_a_writer_never_misses_what_survives(log: EventLog) -> None:
    """P4: what a page skips is superseded, and what supersedes it comes later."""
    await make(log, last=2)
    seen: set[int] = set()
    lasting = {1, 2}
    done = asyncio.Event()

    async def follow() -> None:
        cursor = 0
        while not done.is_set() or cursor < (await log.head("c")).head:
            page = await log.read("c", cursor, 200)
            seen.update(page.seqs)
            assert page.through >= cursor
            cursor = page.through
            await asyncio.sleep(0)

    follower = asyncio.create_task(follow())
    head = 2
    for step in range(40):
        for _ in range(3):
            await log.append(Append("c", head, 1, (row([head + 1, head + 2], owner=f"{step}"),)))
            head += 2
        await log.append(Append("c", head, 1, (row([head + 1]),), superseded=(f"{step}",)))
        head += 1
        lasting.add(head)
    done.set()
    await follower
    assert lasting <= seen
    assert await whole(log) == sorted(lasting)


async def test_a_first_append_again_is_no_append(log: EventLog) -> None:
    append = first("c", last=2)
    await log.create(append, "log-c", OWNER)
    await log.append(replace(append, creation=None))
    assert (await log.head("c")).head == 2
