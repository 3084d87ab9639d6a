"""The embedded database under load and out of order: group commit, full, locked, read-only, damaged, too slow."""

from __future__ import annotations

import asyncio
import inspect
import logging
import resource
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import aiosqlite
import pytest

from app.core.errors import Corrupt
from app.store import sqlite, sqlite_hop, sqlite_writer
from app.store.event_log import Append, Unavailable
from app.store.log_sqlite import SqliteLog
from app.store.sqlite import Database
from tests.store.builders import OWNER, first, make, opened, row, whole


def insert(name: str) -> Callable[[sqlite3.Connection], None]:
    def job(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO holdfast (name, value) VALUES (?, 1)", (name,))

    return job


async def names(database: Database) -> list[str]:
    query = "SELECT name FROM holdfast WHERE name <> 'boot' ORDER BY name"
    return await database.read(lambda connection: [name for (name,) in connection.execute(query)])


async def writer_pragma(database: Database, statement: str) -> None:
    await sqlite_hop.hop(database.writer._connection, lambda connection: connection.execute(statement).fetchall())


# --- the way in


async def test_the_hop_is_one_call_and_the_only_private_one(database: Database) -> None:
    """aiosqlite's `_execute(fn, …)` and `_conn` are private: this fails when a new version moves them."""
    assert list(inspect.signature(aiosqlite.Connection._execute).parameters)[:2] == ["self", "fn"]
    assert isinstance(inspect.getattr_static(aiosqlite.Connection, "_conn"), property)
    assert database.writer._connection._thread.daemon
    assert await sqlite_hop.hop(database.writer._connection, lambda raw: type(raw)) is sqlite3.Connection
    for file in Path(sqlite.__file__).parent.glob("*.py"):
        found = any(private in file.read_text() for private in ("._execute(", "._conn\n", "._thread"))
        assert found == (file.name == "sqlite_hop.py"), file.name


async def test_a_commit_survives_power_loss_by_configuration(database: Database) -> None:
    """FAULTS 15, 21: WAL with synchronous=FULL; checkpoints are the writer's own; a lock is waited for, so long."""

    def pragmas(connection: sqlite3.Connection) -> list[object]:
        asked = ("journal_mode", "synchronous", "wal_autocheckpoint", "busy_timeout", "journal_size_limit")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in asked]

    found = await sqlite_hop.hop(database.writer._connection, pragmas)
    assert found == ["wal", 2, 0, 50, sqlite_writer.WAL_BYTES]


async def test_what_people_said_is_theirs_alone(database: Database, tmp_path: Path) -> None:
    for file in (tmp_path / "data").glob("holdfast.db*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


# --- group commit


async def test_what_waits_is_committed_together(database: Database) -> None:
    before = database.writer.commits
    await asyncio.gather(*(database.write(insert(f"{number:03}")) for number in range(100)))
    assert database.writer.commits - before <= 2
    assert len(await names(database)) == 100


async def test_one_key_shares_no_commit_with_itself_and_alone_with_nobody(database: Database) -> None:
    order: list[str] = []

    async def write(name: str, key: str | None = None, alone: bool = False) -> None:
        await database.write(insert(name), key=key, alone=alone, on_commit=lambda _: order.append(name))

    before = database.writer.commits
    await asyncio.gather(write("a", "k"), write("b", "l"), write("c", "k"), write("d", alone=True), write("e"))
    assert order == ["a", "b", "c", "d", "e"]
    assert database.writer.commits - before == 4


async def test_one_bad_job_fails_alone(database: Database) -> None:
    def bad(connection: sqlite3.Connection) -> None:
        insert("half")(connection)
        raise ValueError("bad")

    jobs = [insert("a"), bad, insert("b"), insert("a")]
    outcomes = await asyncio.gather(*(database.write(job) for job in jobs), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, type(None), sqlite3.IntegrityError]
    assert await names(database) == ["a", "b"]


async def test_a_caller_who_leaves_does_not_stop_the_write(database: Database) -> None:
    told: list[None] = []
    leaving = asyncio.create_task(database.write(insert("a"), on_commit=told.append))
    await asyncio.sleep(0)
    leaving.cancel()
    await database.write(insert("b"))
    assert await names(database) == ["a", "b"]
    assert told == [None]
    assert leaving.cancelled() or leaving.done()


async def test_the_queue_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_writer, "WAITING_MAX", 10)
    jobs = (database.write(insert(f"{number:02}")) for number in range(15))
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None)] * 10 + [Unavailable] * 5
    await database.write(insert("later"))


async def test_closing_commits_what_waits(tmp_path: Path) -> None:
    database = await Database.open(tmp_path, busy_ms=50)
    writes = [asyncio.create_task(database.write(insert(f"{number}"))) for number in range(5)]
    await asyncio.sleep(0)
    await database.close()
    await asyncio.gather(*writes)
    await database.close()
    with pytest.raises(Unavailable):
        await database.write(insert("late"))
    with pytest.raises(Unavailable):
        await names(database)
    again = await Database.open(tmp_path)
    assert await names(again) == ["0", "1", "2", "3", "4"]
    await again.close()


async def test_the_write_ahead_log_does_not_grow_without_end(database: Database, tmp_path: Path) -> None:
    """FAULTS 19."""
    path = tmp_path / "data" / "holdfast.db"

    async def write_large(times: int) -> int:
        statement = "INSERT OR REPLACE INTO holdfast VALUES ('large', randomblob(3000000))"
        for _ in range(times):
            await database.write(lambda connection: connection.execute(statement).fetchall())
        return path.with_name("holdfast.db-wal").stat().st_size

    assert await write_large(12) <= 3 * sqlite_writer.WAL_BYTES
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM holdfast").fetchall()
    assert await write_large(6) > 3 * sqlite_writer.WAL_BYTES
    reader.close()
    assert await write_large(6) <= 3 * sqlite_writer.WAL_BYTES


# --- out of order


async def test_a_full_disk_refuses_and_recovers_with_the_identical_append(
    database: Database, sqlite_log: SqliteLog
) -> None:
    """FAULTS 14."""
    await make(sqlite_log)
    await make(sqlite_log, "d")
    append = Append("c", 2, 1, (row([3]), row([4, 5], owner="a"), row(range(6, 2_000))), runs=("r",))
    await writer_pragma(database, "PRAGMA max_page_count = 1")
    for _ in range(2):
        outcomes = await asyncio.gather(
            sqlite_log.append(append), sqlite_log.keep("d", "ref", "x" * 100_000), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
        assert not await sqlite_log.writable()
    assert await whole(sqlite_log) == [1, 2]
    assert await sqlite_log.find_run("r") is None
    await writer_pragma(database, "PRAGMA max_page_count = 1000000")
    assert await sqlite_log.writable()
    await sqlite_log.append(append)
    await sqlite_log.append(append)
    assert len(await whole(sqlite_log, bytes_max=10_000)) == 1_999


async def test_a_full_disk_is_first_given_what_a_checkpoint_frees(database: Database, tmp_path: Path) -> None:
    """FAULTS 14: `wal_checkpoint(TRUNCATE)` once, then the same group again; who asked notices nothing."""
    wal = tmp_path / "data" / "holdfast.db-wal"
    tries = 0

    def needs_room(connection: sqlite3.Connection) -> None:
        nonlocal tries
        tries += 1
        if wal.stat().st_size:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        insert("b")(connection)

    await database.write(insert("a"))
    await database.write(needs_room)
    assert tries == 2 and await names(database) == ["a", "b"]


async def test_a_lock_of_another_program_refuses_and_recovers(
    database: Database, sqlite_log: SqliteLog, tmp_path: Path
) -> None:
    """FAULTS 15; reading goes on."""
    await make(sqlite_log)
    backup = sqlite3.connect(tmp_path / "data" / "holdfast.db", isolation_level=None)
    backup.execute("BEGIN EXCLUSIVE")
    append = Append("c", 2, 1, (row([3]),))
    with pytest.raises(Unavailable, match="another program"):
        await sqlite_log.append(append)
    assert not await sqlite_log.writable()
    assert await whole(sqlite_log) == [1, 2]
    backup.execute("ROLLBACK")
    backup.close()
    await sqlite_log.append(append)
    assert await whole(sqlite_log) == [1, 2, 3]


async def test_a_read_only_database_refuses_and_recovers(database: Database, sqlite_log: SqliteLog) -> None:
    """FAULTS 16."""
    await make(sqlite_log)
    await writer_pragma(database, "PRAGMA query_only = ON")
    append = Append("c", 2, 1, (row([3]),))
    with pytest.raises(Unavailable, match="read-only"):
        await sqlite_log.append(append)
    with pytest.raises(Unavailable):
        await sqlite_log.create(first("d", creation="k"), "log-d", OWNER)
    assert not await sqlite_log.writable()
    assert await whole(sqlite_log) == [1, 2] and database.writer.failures == 3
    await writer_pragma(database, "PRAGMA query_only = OFF")
    await sqlite_log.append(append)
    await sqlite_log.create(first("d", creation="k"), "log-d", OWNER)
    assert await whole(sqlite_log) == [1, 2, 3]


async def test_an_input_output_error_in_commit_refuses_and_recovers(
    database: Database, sqlite_log: SqliteLog, tmp_path: Path
) -> None:
    """FAULTS 16: the file may not grow (EFBIG), which SQLite finds out in COMMIT, so that the outcome is in doubt."""
    await make(sqlite_log)
    await sqlite_log.append(Append("c", 2, 1, (row([3], owner="a"),)))
    append = Append("c", 3, 1, (row([4]), row(range(5, 3_000))), superseded=("a",))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "data" / "holdfast.db-wal").stat().st_size, hard))
    try:
        with pytest.raises(Unavailable, match="disk"):
            await sqlite_log.append(append)
        assert await sqlite_log.item("c") == (await sqlite_log.items(OWNER, limit=1))[0]
        assert await whole(sqlite_log) == [1, 2, 3]
        with pytest.raises(Unavailable, match="disk"):
            await sqlite_log.append(append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await sqlite_log.append(append)
    assert len(await whole(sqlite_log, bytes_max=10_000)) == 2 + 1 + 2_995


async def test_a_damaged_page_stops_all_writing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 17: noticed while running, by a read; every later write is refused, and so is the next start."""
    path = tmp_path / "holdfast.db"
    async with opened(tmp_path) as log:
        await make(log)
        for number in range(50):
            await log.keep("c", f"{number}", "x" * 20_000)
    async with opened(tmp_path) as log:
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(size // 2)
            file.write(bytes(size - size // 2))
        with caplog.at_level(logging.CRITICAL), pytest.raises(Corrupt, match="damaged"):
            for number in range(50):
                await log.kept("c", f"{number}")
        assert "writing has stopped" in caplog.text
        with pytest.raises(Unavailable, match="damaged"):
            await log.append(Append("c", 2, 1, (row([3]),)))
        assert not await log.writable()
    with pytest.raises(Corrupt, match="restore the newest good backup"):
        await Database.open(tmp_path)


async def test_a_write_that_finds_damage_is_the_last_one(database: Database) -> None:
    """FAULTS 17: what already waits behind it is refused too."""

    def finds_damage(connection: sqlite3.Connection) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT_INDEX
        raise error

    jobs = (database.write(finds_damage, alone=True), database.write(insert("a")), database.write(insert("b")))
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    with pytest.raises(Unavailable, match="damaged"):
        await database.write(insert("c"))
    assert await names(database) == []


async def test_what_is_no_database_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "holdfast.db").write_bytes(b"something else entirely " * 1_000)
    with pytest.raises(Corrupt, match="damaged"):
        await Database.open(tmp_path)


async def test_a_directory_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(Unavailable, match="data directory"):
        await Database.open(tmp_path / "file" / "data")


async def test_a_long_read_ends(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 20."""
    monkeypatch.setattr(sqlite, "READ_SECONDS", 0.05)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(Unavailable, match="too long"):
        async with asyncio.timeout(20):
            await database.read(lambda connection: connection.execute(endless).fetchone())
    assert await names(database) == []


async def test_a_reading_connection_cannot_write(database: Database) -> None:
    with pytest.raises(Unavailable, match="read-only"):
        await database.read(insert("a"))
    assert await names(database) == []
