"""The log for whoever only looks (003-17): beside its owner, in pages, and never silent about damage."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.core.errors import Corrupt
from app.store import log_sqlite_readonly
from app.store.event_log import Append, Unavailable
from app.store.log_sqlite_readonly import ReadOnlyLog
from app.store.sqlite import FILE
from tests.store.builders import make, opened, row, text


def meddle(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / FILE)) as connection, connection:
        assert connection.execute(statement).rowcount == 1


async def test_it_reads_beside_the_owner_what_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lasting rows and pieces, page after page, up to where the log stood; deleted ones only when asked for."""
    monkeypatch.setattr(log_sqlite_readonly, "PAGE_BYTES", 60)
    async with opened(tmp_path) as log:
        await make(log, "c")
        await log.append(Append("c", 2, 1, (row([3, 5]), row([6], through=8, owner="a"))))
        await make(log, "gone")
        await log.delete("gone", 5)
        with ReadOnlyLog.open(tmp_path) as looking:
            assert looking.conversations() == ["c"]
            reading = looking.texts("c")
            assert next(reading) == text(1)
            await log.append(Append("c", 8, 1, (row([9, 10]),), superseded=("a",)))
            assert list(reading) == [text(seq) for seq in (2, 3, 5)], "what is superseded by now is gone, rightly"
            assert list(looking.texts("c")) == [text(seq) for seq in (1, 2, 3, 5, 9, 10)]
            assert list(looking.texts("gone")) == [text(1), text(2)]
            with pytest.raises(KeyError):
                list(looking.texts("never"))


async def test_it_writes_nothing(tmp_path: Path) -> None:
    """No start is counted: that would give every log a new id on the day an older copy is put back."""
    async with opened(tmp_path) as log:
        await make(log, "c")
    before = {name: (tmp_path / name).read_bytes() for name in (FILE, "boot")}
    with ReadOnlyLog.open(tmp_path) as looking:
        assert list(looking.texts("c")) == [text(1), text(2)]
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM log WHERE after = 2",
        "DELETE FROM log WHERE after = 4",
        "UPDATE log SET prev = 1 WHERE after = 2",
        "UPDATE log SET events = events || char(10) || '{}' WHERE after = 2",
        "UPDATE log SET events = CAST(x'ff' AS TEXT) WHERE after = 2",
    ],
)
async def test_a_broken_chain_is_said(tmp_path: Path, damage: str) -> None:
    async with opened(tmp_path) as log:
        await make(log, "c")
        await log.append(Append("c", 2, 1, (row([3, 4]),)))
        await log.append(Append("c", 4, 1, (row([5]),)))
    meddle(tmp_path, damage)
    with ReadOnlyLog.open(tmp_path) as looking, pytest.raises(Corrupt):
        list(looking.texts("c"))


def test_no_database_and_no_database_at_all(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="there is no"), ReadOnlyLog.open(tmp_path):
        pass
    (tmp_path / FILE).write_text("this is no database, whatever its name says" * 100)
    with pytest.raises(Corrupt), ReadOnlyLog.open(tmp_path) as looking:
        looking.conversations()
