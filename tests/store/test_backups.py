"""Backups: made once a day and bounded; a damaged file is kept aside and the newest good copy takes its place."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.core.errors import Corrupt
from app.store import backups
from app.store import sqlite as sqlite_module
from app.store.backups import ASIDE, ASIDE_MAX, EVERY_SECONDS, FOLDER, back_up, restore
from app.store.boot import FILE as COUNT
from app.store.event_log import Unavailable
from app.store.log_sqlite import SqliteLog
from app.store.sqlite import Database
from tests.store.builders import make, opened, whole

DB = "holdfast.db"


def wanted() -> bool:
    return False


def age(directory: Path) -> None:
    """A day and more goes by."""
    for number, copy in enumerate(sorted((directory / FOLDER).glob("*.db"))):
        renamed = copy.rename(copy.with_name(f"2020010{number}T000000Z.db"))
        os.utime(renamed, (0, 0))


def damage(path: Path) -> None:
    """Overwrites pages in the middle, as a bad disk does."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))


async def filled(directory: Path, *conversations: str) -> None:
    async with opened(directory) as log:
        for conversation in conversations:
            await make(log, conversation)


async def test_a_backup_is_made_once_a_day_and_so_many_are_kept(tmp_path: Path) -> None:
    """FAULTS 17: none of an empty database; each whole; the oldest go."""
    await (await Database.open(tmp_path)).close()
    assert back_up(tmp_path / DB, 2, wanted) is None
    await filled(tmp_path, "c")
    for _ in range(4):
        made = back_up(tmp_path / DB, 2, wanted)
        assert made is not None and oct(made.stat().st_mode)[-3:] == "600"
        assert back_up(tmp_path / DB, 2, wanted) is None, "the newest one is of today"
        with closing(sqlite3.connect(made)) as copy:
            assert copy.execute("SELECT conversation FROM log_conversations").fetchall() == [("c",)]
            with closing(sqlite3.connect(tmp_path / DB)) as original:
                version = original.execute("PRAGMA user_version").fetchone()
            assert copy.execute("PRAGMA user_version").fetchone() == version
        age(tmp_path)
    assert len(list((tmp_path / FOLDER).iterdir())) == 2
    assert EVERY_SECONDS == 86_400


async def test_what_is_too_large_or_not_wanted_any_more_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: the copy is bounded, and the end of the process does not wait for it."""
    await filled(tmp_path, "c")
    monkeypatch.setattr(backups, "_INSTRUCTIONS_PER_LOOK", 1)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        back_up(tmp_path / DB, 2, lambda: True)
    monkeypatch.setattr(backups, "BYTES_MAX", 1_000)
    assert back_up(tmp_path / DB, 2, wanted) is None
    assert not list((tmp_path / FOLDER).glob("*.db"))


async def test_an_open_database_is_backed_up_beside_its_work(tmp_path: Path) -> None:
    """Without holding anybody up; what is written meanwhile is in the database and not in the copy, or in both."""
    await filled(tmp_path, "c")
    database = await Database.open(tmp_path, backups=1)
    log = SqliteLog(database)
    await log.start()
    await make(log, "d")
    async with asyncio.timeout(20):
        while not list((tmp_path / FOLDER).glob("*.db")):
            await asyncio.sleep(0.01)
    assert [item.conversation for item, _ in await log.items("ann", limit=9)] == ["d", "c"]
    await database.close()


@pytest.mark.parametrize("how", ["pages", "header", "cut"])
async def test_a_damaged_file_is_kept_and_the_newest_good_backup_takes_its_place(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """FAULTS 17: new log ids, so that readers start over; said once; the runs are to be stopped, also after a crash."""
    await filled(tmp_path, "c")
    assert back_up(tmp_path / DB, 3, wanted)
    age(tmp_path)
    await filled(tmp_path, "lost")
    assert back_up(tmp_path / DB, 3, wanted)
    damage(max((tmp_path / FOLDER).glob("*.db")))
    path = tmp_path / DB
    match how:
        case "pages":
            damage(path)
        case "header":
            path.write_bytes(b"no database" + path.read_bytes()[11:])
        case "cut":
            os.truncate(path, path.stat().st_size // 2)
    bytes_before = path.read_bytes()
    with pytest.raises(Corrupt):
        await Database.open(tmp_path)
    with caplog.at_level(logging.WARNING, "app.store"):
        database = await Database.open(tmp_path, backups=3)
    assert database.restored and database.stale
    assert [r.levelname for r in caplog.records if "backup 2020" in r.getMessage()] == ["CRITICAL"]
    [kept] = (tmp_path / ASIDE).iterdir()
    assert (kept / DB).read_bytes() == bytes_before
    log = SqliteLog(database)
    await log.start()
    assert [item.conversation for item, _ in await log.items("ann", limit=9)] == ["c"]
    assert await whole(log, "c") == [1, 2] and (await log.head("c")).log != "log-c"
    await database.close()
    again = await Database.open(tmp_path, backups=3)
    assert not again.restored and again.stale, "a crash came before they were stopped"
    await again.settle()
    await again.close()
    once_more = await Database.open(tmp_path)
    assert not once_more.stale
    await once_more.close()


async def test_without_a_good_backup_the_start_is_refused(tmp_path: Path) -> None:
    """FAULTS 17."""
    await filled(tmp_path, "c")
    damage(tmp_path / DB)
    with pytest.raises(Corrupt, match="damaged"):
        await Database.open(tmp_path, backups=3)
    assert not list((tmp_path / ASIDE).iterdir())


async def test_what_is_kept_of_damaged_files_is_bounded(tmp_path: Path) -> None:
    """P8: a disk that damages every file in turn is not filled with them."""
    await filled(tmp_path, "c")
    assert back_up(tmp_path / DB, 1, wanted)
    for _ in range(ASIDE_MAX):
        damage(tmp_path / DB)
        await (await Database.open(tmp_path, backups=1)).close()
    damage(tmp_path / DB)
    with pytest.raises(Corrupt):
        await Database.open(tmp_path, backups=1)
    assert len(list((tmp_path / ASIDE).iterdir())) == ASIDE_MAX


@pytest.mark.parametrize("last", ["copyfile", "put_ahead", "link", "rename"])
async def test_a_crash_on_the_way_back_is_repaired_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """FAULTS 17, 22: whatever it was doing last, the copy ends in place and is known to be an older one."""
    await filled(tmp_path, "c")
    assert back_up(tmp_path / DB, 1, wanted)
    (tmp_path / COUNT).unlink()
    damage(tmp_path / DB)
    (tmp_path / f"{DB}-wal").write_bytes(b"")

    class Died(OSError):
        pass

    place = {"copyfile": shutil, "put_ahead": backups, "link": os, "rename": Path}[last]
    real = getattr(place, last)

    def dies(*arguments: object) -> None:
        real(*arguments)
        if last != "rename" or str(arguments[0]).endswith("-wal"):
            raise Died

    with monkeypatch.context() as patched:
        patched.setattr(place, last, dies)
        with pytest.raises(Died):
            restore(tmp_path / DB)
    database = await Database.open(tmp_path, backups=1)
    assert database.stale
    await database.close()


async def test_a_backup_folder_that_cannot_be_used_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a traceback: the start is refused with a sentence."""
    await filled(tmp_path, "c")
    assert back_up(tmp_path / DB, 1, wanted)
    damage(tmp_path / DB)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(sqlite_module, "restore", full)
    with pytest.raises(Unavailable, match="no space left"):
        await Database.open(tmp_path, backups=1)
