"""Before the first append: the lock, migrations that were interrupted, newer schemas, an older database put back."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.store import sqlite as sqlite_module
from app.store.boot import FILE
from app.store.event_log import Unavailable
from app.store.lock import Locked, acquire
from app.store.sqlite import Database
from app.store.sqlite_migrations import SCHEMA, NewerSchema, migrate
from tests.store.builders import make, opened, whole

# --- the lock

HOLD = "import asyncio, sys, time; from pathlib import Path; from app.store.lock import acquire\n"
HOLD += "lock = asyncio.run(acquire(Path(sys.argv[1]), 0)); print('held', flush=True); time.sleep(60)"


def hold(path: Path) -> subprocess.Popen[str]:
    """Another process that has the lock."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], cwd=root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


async def test_a_second_process_waits_and_then_refuses(tmp_path: Path) -> None:
    """FAULTS 13."""
    with hold(tmp_path / "lock") as other:
        started = time.monotonic()
        with pytest.raises(Locked, match=f"another process \\(id {other.pid}\\) uses the data directory"):
            await acquire(tmp_path / "lock", 0.2)
        assert time.monotonic() - started >= 0.2
        other.kill()


async def test_the_lock_ends_with_the_process_that_has_it(tmp_path: Path) -> None:
    with hold(tmp_path / "lock") as other:
        waiting = asyncio.create_task(acquire(tmp_path / "lock", 20))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        other.kill()
        lock = await waiting
    with pytest.raises(Locked):
        await acquire(tmp_path / "lock", 0)
    lock.release()
    (await acquire(tmp_path / "lock", 0)).release()


async def test_what_cannot_be_a_data_directory_is_said_in_a_sentence(tmp_path: Path) -> None:
    """FAULTS 104: a file in its place; no traceback, whoever serves says it and goes."""
    (tmp_path / "data").write_text("")
    with pytest.raises(Unavailable, match="the data directory cannot be used: "):
        await acquire(tmp_path / "data" / "lock", 0)


async def test_waiting_for_the_lock_can_be_cancelled(tmp_path: Path) -> None:
    lock = await acquire(tmp_path / "lock", 0)
    waiting = asyncio.create_task(acquire(tmp_path / "lock", 20))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    lock.release()


# --- migrations


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    folder = tmp_path / "schema"
    folder.mkdir()
    (folder / "001_one.sql").write_text(
        "CREATE TABLE one (a);\n-- a comment; with a semicolon\nINSERT INTO one VALUES (1);"
    )
    return folder


def connect(tmp_path: Path) -> sqlite3.Connection:
    return sqlite3.connect(tmp_path / "db", isolation_level=None)


def test_migrations_run_once_and_in_order(tmp_path: Path, schema: Path) -> None:
    connection = connect(tmp_path)
    assert migrate(connection, schema) == ["001_one.sql"]
    assert migrate(connection, schema) == []
    trigger = (
        "CREATE TRIGGER t AFTER INSERT ON one BEGIN\n  DELETE FROM one WHERE a = 0;\nEND;\nINSERT INTO one VALUES (2);"
    )
    (schema / "002_two.sql").write_text(trigger)
    (schema / "003_three.sql").write_text("INSERT INTO one VALUES (3);")
    assert migrate(connection, schema) == ["002_two.sql", "003_three.sql"]
    assert connection.execute("SELECT a FROM one ORDER BY a").fetchall() == [(1,), (2,), (3,)]
    assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    connection.close()


def test_an_interrupted_migration_is_completed_by_the_next_start(tmp_path: Path, schema: Path) -> None:
    """FAULTS 11: the process dies between two statements of a step."""
    second = schema / "002_two.sql"
    second.write_text("CREATE TABLE two (a);\nINSERT INTO two SELECT a FROM one;\nSELECT die();\nDROP TABLE one;")
    script = (
        "import os, sqlite3, sys; from pathlib import Path; from app.store.sqlite_migrations import migrate\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None); c.create_function('die', 0, lambda: os._exit(9))\n"
        "migrate(c, Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "db"), str(schema)]
    assert subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode == 9
    connection = connect(tmp_path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT name FROM migrations").fetchall() == [("001_one.sql",)]
    second.write_text(second.read_text().replace("SELECT die();\n", ""))
    assert migrate(connection, schema) == ["002_two.sql"]
    assert connection.execute("SELECT a FROM two").fetchall() == [(1,)]
    connection.close()


def test_a_failing_migration_changes_nothing(tmp_path: Path, schema: Path) -> None:
    connection = connect(tmp_path)
    migrate(connection, schema)
    (schema / "002_two.sql").write_text("DELETE FROM one; INSERT INTO nowhere VALUES (1);")
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, schema)
    assert connection.execute("SELECT a FROM one").fetchall() == [(1,)]
    assert not connection.in_transaction
    connection.close()


async def test_a_newer_major_schema_is_refused_and_a_newer_minor_one_is_not(tmp_path: Path) -> None:
    """FAULTS 102: what an older version would damage it does not touch; what is only added is no hindrance."""
    await (await Database.open(tmp_path)).close()
    connection = sqlite3.connect(tmp_path / "holdfast.db")
    connection.execute("PRAGMA user_version = 57")
    connection.commit()
    await (await Database.open(tmp_path)).close()
    assert connection.execute("PRAGMA user_version").fetchone() == (57,)
    connection.execute("PRAGMA user_version = 101")
    connection.commit()
    connection.close()
    with pytest.raises(NewerSchema, match="schema 101 and this version of Holdfast knows no further"):
        await Database.open(tmp_path)


def test_schema_files_are_numbered_without_gaps() -> None:
    numbers = [int(file.name[:3]) for file in sorted(SCHEMA.glob("*.sql"))]
    assert numbers == list(range(1, len(numbers) + 1))


# --- an older database put back


async def open_once(directory: Path, make_conversations: int = 0) -> tuple[bool, dict[str, str]]:
    """Opens and closes; whether a restore was noticed, and the log ids."""
    async with opened(directory) as log:
        for number in range(make_conversations):
            await make(log, f"c{number}")
        found: dict[str, str] = {}
        for one, _ in await log.items("ann", limit=99):
            found[one.conversation] = (await log.head(one.conversation)).log
            assert await whole(log, one.conversation) == [1, 2]
        return log._database.restored, found


async def test_log_ids_stay_across_ordinary_starts(tmp_path: Path) -> None:
    _, made = await open_once(tmp_path, make_conversations=3)
    assert made == {f"c{number}": f"log-c{number}" for number in range(3)}
    for _ in range(3):
        assert await open_once(tmp_path) == (False, made)


async def test_an_older_database_gets_new_log_ids(tmp_path: Path) -> None:
    """SEMANTICS §11, FAULTS 21, 22: a reader's cursor of the lost future must not fit any more."""
    data, backup = tmp_path / "data", tmp_path / "backup.db"
    _, made = await open_once(data, make_conversations=3)
    shutil.copy(data / "holdfast.db", backup)
    await open_once(data)
    count = int((data / FILE).read_text())
    shutil.copy(backup, data / "holdfast.db")
    restored, renamed = await open_once(data)
    assert restored
    assert renamed.keys() == made.keys()
    assert not set(renamed.values()) & set(made.values())
    assert len(set(renamed.values())) == 3
    assert int((data / FILE).read_text()) > count
    assert await open_once(data) == (False, renamed)


async def test_a_copy_made_while_it_ran_is_noticed(tmp_path: Path) -> None:
    """The usual backup: nobody restarts a server between the copy and the accident."""
    async with opened(tmp_path) as log:
        await make(log)
        copy_database(tmp_path, tmp_path / "backup.db")
        await make(log, "after the copy")
    shutil.copy(tmp_path / "backup.db", tmp_path / "holdfast.db")
    restored, found = await open_once(tmp_path)
    assert restored
    assert found.keys() == {"c"}
    assert found["c"] != "log-c"


async def test_a_long_process_counts_while_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before, and then the process is killed: what it counted on the way tells."""
    monkeypatch.setattr(sqlite_module, "COUNT_SECONDS", 0.01)
    boot, killed = tmp_path / FILE, tmp_path / "killed"
    async with opened(tmp_path) as log:
        await make(log)
        while boot.read_text() == "1\n":
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.03)
        quiet = boot.read_text()
        await asyncio.sleep(0.03)
        assert boot.read_text() == quiet
        copy_database(tmp_path, tmp_path / "backup.db")
        await make(log, "after the copy")
        while boot.read_text() == quiet:
            await asyncio.sleep(0.005)
        killed.mkdir()
        shutil.copy(tmp_path / "backup.db", killed / "holdfast.db")
        shutil.copy(boot, killed / FILE)
    assert (await open_once(killed))[0]


def copy_database(directory: Path, target: Path) -> None:
    """As backup programs do it while the server runs."""
    source, copy = sqlite3.connect(directory / "holdfast.db"), sqlite3.connect(target)
    source.backup(copy)
    source.close()
    copy.close()


@pytest.mark.parametrize("content", [None, "", "nonsense", "1"])
async def test_a_lost_boot_file_is_written_again(tmp_path: Path, content: str | None) -> None:
    """A copied database, or a crash between the commit and the file: nothing was lost."""
    _, made = await open_once(tmp_path, make_conversations=1)
    await open_once(tmp_path)
    count = int((tmp_path / FILE).read_text())
    if content is None:
        (tmp_path / FILE).unlink()
    else:
        (tmp_path / FILE).write_text(content)
    assert await open_once(tmp_path) == (False, made)
    assert (tmp_path / FILE).read_text() == f"{count + 1}\n"
