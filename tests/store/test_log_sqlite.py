"""What only a log on disk can get wrong: restarts, damaged rows, a commit in doubt, forgotten memory."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.core.errors import Corrupt
from app.store import log_sqlite_positions, sqlite_writer
from app.store.event_log import AlreadyCreated, Append, Fenced, Head, Unavailable
from app.store.log_sqlite import SqliteLog
from app.store.log_sqlite_rows import Position, read_page
from app.store.sqlite import Database
from app.store.sqlite_hop import transaction
from tests.store.builders import OWNER, first, item, make, opened, row, whole


async def change(log: SqliteLog, statement: str, *parameters: object) -> None:
    """Somebody meddles with the rows."""
    await log._database.write(lambda connection: connection.execute(statement, parameters).fetchall())


async def count(log: SqliteLog, table: str) -> int:
    query = f"SELECT count(*) FROM {table}"
    return int(await log._database.read(lambda connection: connection.execute(query).fetchone()[0]))


# --- restarts


async def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    full = item(title="Dinner", status="waiting", run="r", step=2, waiting_for="approval", busy=True, wake_at=7)
    async with opened(tmp_path) as log:
        await log.create(first("c", creation="key", run="r"), "log-c", OWNER)
        await log.append(Append("c", 2, 3, (row([3, 5]), row([6], through=8, owner="a")), item=full))
        await log.append(Append("c", 8, 3, (row([9], owner="b"),)))
        await log.keep("c", "ref", "kept")
        await make(log, "gone")
        await log.delete("gone", 5)
    async with opened(tmp_path) as log:
        assert await log.head("c") == Head("log-c", 3, 9)
        assert await whole(log) == [1, 2, 3, 5, 6, 9]
        assert await log.item("c") == (full, 9)
        assert await log.items(OWNER, limit=9) == [(full, 9)]
        assert await log.kept("c", "ref") == "kept"
        assert await log.find_run("r") == "c"
        assert (await log.unfinished(0), await log.next_wake()) == (["c"], 7)
        with pytest.raises(AlreadyCreated):
            await log.create(first("d", creation="key"), "log-d", OWNER)
        with pytest.raises(Fenced):
            await log.append(Append("c", 9, 2, (row([10]),)))
        assert await log.restore("gone", 5)


async def test_pieces_of_a_process_before_are_superseded_by_this_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        for name in ("c", "d"):
            await make(log, name)
            await log.append(Append(name, 2, 1, (row([3, 4], owner="a"), row([5], owner="b"))))
    async with opened(tmp_path) as log:
        await log.append(Append("c", 5, 2, (row([6], owner="c"),)))
        await log.append(Append("c", 6, 2, (row([7]),), superseded=("a",)))
        assert await whole(log, "c") == [1, 2, 5, 6, 7]
        assert await whole(log, "d") == [1, 2, 3, 4, 5]
        assert await count(log, "log_pieces") == 4
    async with opened(tmp_path) as log:
        assert await whole(log, "c") == [1, 2, 5, 6, 7]


async def test_the_head_is_exact_after_a_restart_whatever_was_superseded(tmp_path: Path) -> None:
    """Numbers once given to pieces are never given again."""
    async with opened(tmp_path) as log:
        await make(log, "skipped")
        await log.append(Append("skipped", 2, 1, (row([3], through=9),)))
        await make(log, "superseded")
        await log.append(Append("superseded", 2, 1, (row([3, 4, 5], owner="a"),)))
        await log.append(Append("superseded", 5, 1, (row([6], through=8), row([9], owner="b")), superseded=("a",)))
        await make(log, "tail")
        await log.append(Append("tail", 2, 1, (row([3], through=7, owner="a"),)))
    async with opened(tmp_path) as log:
        assert [(await log.head(name)).head for name in ("skipped", "superseded", "tail")] == [9, 9, 7]


async def test_a_repeat_is_known_across_a_restart(tmp_path: Path) -> None:
    append = Append("c", 2, 1, (row([3, 5]), row([6], owner="a"), row([7, 8])))
    async with opened(tmp_path) as log:
        await make(log)
        await log.append(append)
    async with opened(tmp_path) as log:
        await log.append(append)
        assert await whole(log) == [1, 2, 3, 5, 6, 7, 8]


# --- damage


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM log WHERE conversation = 'c' AND after = 3",
        "DELETE FROM log WHERE conversation = 'c' AND after = 5",
        "DELETE FROM log WHERE conversation = 'c' AND after = 0",
        "DELETE FROM log WHERE conversation = 'c'",
        "UPDATE log SET prev = 1 WHERE conversation = 'c' AND after = 3",
        "UPDATE log SET through = 9 WHERE conversation = 'c' AND after = 5",
        "UPDATE log SET events = 'one less' WHERE conversation = 'c' AND after = 3",
        "UPDATE log SET seqs = '4' WHERE conversation = 'c' AND after = 3",
        "UPDATE log SET events = CAST(x'ff0aff' AS TEXT) WHERE conversation = 'c' AND after = 3",
        "UPDATE log_conversations SET lasting = 9 WHERE conversation = 'c'",
    ],
)
async def test_damaged_rows_are_noticed_and_only_for_their_conversation(tmp_path: Path, damage: str) -> None:
    """FAULTS 18."""
    async with opened(tmp_path) as log:
        for name in ("b", "c", "d"):
            await make(log, name, last=2)
            await log.append(Append(name, 2, 1, (row([3]),)))
            await log.append(Append(name, 3, 1, (row([4, 5]),)))
            await log.append(Append(name, 5, 1, (row([6]),)))
        await change(log, damage)
    async with opened(tmp_path) as log:
        with pytest.raises(Corrupt, match=r"c:|no text any more"):
            await whole(log, "c")
        for name in ("b", "d"):
            assert await whole(log, name) == [1, 2, 3, 4, 5, 6]
            await log.append(Append(name, 6, 1, (row([7]),)))
        assert await log.writable()


async def test_a_missing_tail_is_noticed_by_the_head(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await make(log)
        await log.append(Append("c", 2, 1, (row([3]),)))
        await change(log, "DELETE FROM log WHERE after = 2")
        with pytest.raises(Corrupt, match="ends at 2 and should end at 3"):
            await log.head("c")


async def test_a_row_beyond_the_end_is_never_written_over(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await make(log)
        await change(log, "INSERT INTO log VALUES ('c', 2, 3, 2, 1, NULL, 'unexpected')")
        with pytest.raises(Corrupt, match="has a row after 2"):
            await log.append(Append("c", 2, 1, (row([3]),)))


async def test_a_page_in_the_middle_reads_only_its_own_rows(tmp_path: Path) -> None:
    """A reader near the end does not pay for, and is not stopped by, what lies far behind it."""
    async with opened(tmp_path) as log:
        await make(log)
        for seq in range(3, 30):
            await log.append(Append("c", seq - 1, 1, (row([seq]),)))
        await change(log, "DELETE FROM log WHERE after = 4")
        assert (await log.read("c", 20, 10_000)).seqs == list(range(21, 30))
        with pytest.raises(Corrupt):
            await log.read("c", 3, 10_000)


# --- an outcome that nobody knows


@contextmanager
def commits_that_fail(monkeypatch: pytest.MonkeyPatch, *, stored: bool) -> Iterator[None]:
    """COMMIT reports an I/O error, and what it should have stored is, or is not, there."""

    @contextmanager
    def failing(connection: sqlite3.Connection) -> Iterator[None]:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        try:
            with transaction(connection):
                yield
                if not stored:
                    raise error
        finally:
            if stored:
                raise error

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_writer, "transaction", failing)
        yield


@pytest.mark.parametrize("stored", [True, False])
async def test_an_append_in_doubt_is_settled_by_the_same_append(
    sqlite_log: SqliteLog, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    log = sqlite_log
    names = [f"c{number}" for number in range(10)]
    for name in names:
        await make(log, name)
        await log.append(Append(name, 2, 1, (row([3], owner="a"),)))
    appends = [Append(name, 3, 1, (row([4], owner="b"), row([5])), superseded=("a",)) for name in names]
    with commits_that_fail(monkeypatch, stored=stored):
        outcomes = await asyncio.gather(*map(log.append, appends), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert [found for _, found in await log.items(OWNER, limit=99)] == [5 if stored else 3] * 10
    await asyncio.gather(*map(log.append, appends))
    for name in names:
        assert await whole(log, name) == [1, 2, 4, 5]
        await log.append(Append(name, 5, 1, (row([6]),), superseded=("b",)))
        assert await whole(log, name) == [1, 2, 5, 6]


@pytest.mark.parametrize("stored", [True, False])
async def test_a_creation_in_doubt_is_settled_by_the_same_creation(
    sqlite_log: SqliteLog, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    append = first("c", creation="key", run="r")
    with commits_that_fail(monkeypatch, stored=stored), pytest.raises(Unavailable):
        await sqlite_log.create(append, "log-c", OWNER)
    await sqlite_log.create(append, "log-c", OWNER)
    assert await sqlite_log.head("c") == Head("log-c", 1, 2)
    assert await whole(sqlite_log) == [1, 2]


async def test_a_creation_in_doubt_that_failed_is_nobodys(
    sqlite_log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with commits_that_fail(monkeypatch, stored=False), pytest.raises(Unavailable):
        await sqlite_log.create(first("c"), "log-c", OWNER)
    with pytest.raises(KeyError):
        await sqlite_log.head("c")


# --- memory


async def test_superseded_pieces_leave_memory_too(sqlite_log: SqliteLog) -> None:
    await make(sqlite_log)
    await sqlite_log.append(Append("c", 2, 1, (row([3], owner="a"), row([4], owner="b"))))
    await sqlite_log.append(Append("c", 4, 1, (row([5]),), superseded=("a",)))
    position = await sqlite_log._positions.get("c")
    assert [piece.owner for piece in position.pieces] == ["b"]


async def test_positions_are_bounded_and_come_back(sqlite_log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 28."""
    monkeypatch.setattr(log_sqlite_positions, "POSITIONS_MAX", 5)
    log = sqlite_log
    names = [f"c{number}" for number in range(12)]
    for name in names:
        await make(log, name)
    await log.append(Append("c1", 2, 1, (row([3], owner="a"),)))
    for name in names:
        await log.head(name)
    assert len(log._positions._known) <= 6
    for name in names:
        await log.append(Append(name, 3 if name == "c1" else 2, 1, (row([4]),), superseded=("a",)))
        assert await whole(log, name) == [1, 2, 4]


async def test_an_append_to_a_forgotten_log_asks_again(sqlite_log: SqliteLog) -> None:
    """The position may be taken away between asking for it and the group commit."""
    await make(sqlite_log)
    appending = asyncio.create_task(sqlite_log.append(Append("c", 2, 1, (row([3]),))))
    await asyncio.sleep(0)
    sqlite_log._positions.removed(["c"])
    await appending
    assert await whole(sqlite_log) == [1, 2, 3]


async def test_a_position_is_read_again_if_it_became_doubtful_meanwhile(sqlite_log: SqliteLog) -> None:
    await make(sqlite_log)
    await sqlite_log.append(Append("c", 2, 1, (row([3], owner="a"),)))
    sqlite_log._positions.removed(["c"])
    asking = asyncio.create_task(sqlite_log.head("c"))
    await asyncio.sleep(0)
    sqlite_log._positions.doubted("c")
    assert (await asking).head == 3
    assert await whole(sqlite_log) == [1, 2, 3]


async def test_a_page_ends_where_memory_ends(sqlite_log: SqliteLog) -> None:
    """A commit between asking for a page and reading it: its rows are for the next page, with their pieces."""
    await make(sqlite_log)
    before = Position(epoch=1, head=2, lasting=2)
    await sqlite_log.append(Append("c", 2, 1, (row([3], owner="a"), row([4]))))
    page = await sqlite_log._database.read(lambda connection: read_page(connection, "c", 0, 1_000, before))
    assert (page.seqs, page.through, page.head) == ([1, 2], 2, 2)


async def test_an_append_whose_caller_left_still_counts(sqlite_log: SqliteLog) -> None:
    await make(sqlite_log)
    leaving = asyncio.create_task(sqlite_log.append(Append("c", 2, 1, (row([3], owner="a"),))))
    await asyncio.sleep(0)
    leaving.cancel()
    await sqlite_log.append(Append("c", 3, 1, (row([4]),), superseded=("a",)))
    assert await whole(sqlite_log) == [1, 2, 4]


async def test_refused_appends_cost_their_group_nothing(database: Database, sqlite_log: SqliteLog) -> None:
    names = [f"c{number}" for number in range(30)]
    await asyncio.gather(*(make(sqlite_log, name) for name in names))
    before = database.writer.commits
    appends = (sqlite_log.append(Append(name, 2, int(name[1:]) % 2, (row([3]),))) for name in names)
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert sum(isinstance(outcome, Fenced) for outcome in outcomes) == 15
    assert database.writer.commits - before <= 2
