"""Merging of rows in SQLite: fewer rows, the same events, whatever a reader knew before."""

from __future__ import annotations

from pathlib import Path

from app.store.event_log import Append
from app.store.log_sqlite import SqliteLog
from app.store.log_sqlite_rows import read_page, read_position
from app.store.sqlite import Database
from tests.store.builders import make, row, text, whole


async def _opened(folder: Path) -> tuple[Database, SqliteLog]:
    database = await Database.open(folder)
    log = SqliteLog(database)
    await log.start()
    return database, log


async def _rows(database: Database) -> list[tuple[int, int]]:
    query = "SELECT after, through FROM log ORDER BY after"
    return await database.read(lambda connection: connection.execute(query).fetchall())


async def test_small_rows_become_one_and_are_read_the_same(tmp_path: Path) -> None:
    database, log = await _opened(tmp_path)
    await make(log, last=1)
    for seq in range(2, 30):
        await log.append(Append("c", seq - 1, 1, (row([seq]),)))
    await log.merge("c", 4, 25)
    assert await _rows(database) == [(n, n + 1) for n in range(4)] + [(4, 25)] + [(n, n + 1) for n in range(25, 29)]
    for cursor in range(30):
        page = await log.read("c", cursor, 10_000)
        assert page.seqs == list(range(cursor + 1, 30)) and page.texts == [text(seq) for seq in page.seqs]
    assert await whole(log) == list(range(1, 30))
    await log.append(Append("c", 29, 1, (row([30]),)))
    await database.close()
    database, log = await _opened(tmp_path)
    assert await whole(log) == list(range(1, 31))
    await database.close()


async def test_rows_of_two_owners_and_rows_around_pieces_stay_apart(tmp_path: Path) -> None:
    database, log = await _opened(tmp_path)
    await make(log, last=2)
    await log.append(Append("c", 2, 1, (row([3]), row([4], owner="a"), row([5]))))
    await log.append(Append("c", 5, 2, (row([6]), row([7]))))
    await log.merge("c", 0, 7)
    assert await _rows(database) == [(0, 3), (4, 5), (5, 7)]
    assert await whole(log) == [1, 2, 3, 4, 5, 6, 7]
    await log.append(Append("c", 7, 2, (row([8]),), superseded=("a",)))
    await log.merge("c", 0, 8)
    assert await _rows(database) == [(0, 5), (5, 8)]
    assert await whole(log) == [1, 2, 3, 5, 6, 7, 8]
    await database.close()


async def test_a_reader_that_looked_before_a_merge_sees_no_more_than_it_knew(tmp_path: Path) -> None:
    """A read knows its position before it gets a connection; rows may grow in between."""
    database, log = await _opened(tmp_path)
    await make(log, last=2)
    await log.append(Append("c", 2, 1, (row([3]),)))
    before = await database.read(lambda connection: read_position(connection, "c"))
    assert before is not None
    await log.append(Append("c", 3, 1, (row([4, 6]), row([7]))))
    await log.merge("c", 0, 7)
    page = await database.read(lambda connection: read_page(connection, "c", 0, 10_000, before))
    assert (page.seqs, page.through, page.head) == ([1, 2, 3], 3, 3)
    await database.close()
