"""Every variant of each contract, as fixtures: a test that asks for `log` or `archive` runs against all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.store.archive import Archive
from app.store.archive_memory import MemoryArchive
from app.store.archive_sqlite import SqliteArchive
from app.store.event_log import EventLog
from app.store.log_memory import MemoryLog
from app.store.log_sqlite import SqliteLog
from app.store.sqlite import Database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(tmp_path / "data", busy_ms=50)
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite_log(database: Database) -> SqliteLog:
    log = SqliteLog(database)
    await log.start()
    return log


@pytest.fixture(params=["memory", "sqlite"])
def log(request: pytest.FixtureRequest) -> EventLog:
    if request.param == "memory":
        return MemoryLog()
    opened: SqliteLog = request.getfixturevalue("sqlite_log")
    return opened


@pytest.fixture(params=["memory", "sqlite"])
def archive(request: pytest.FixtureRequest) -> Archive:
    if request.param == "memory":
        return MemoryArchive()
    return SqliteArchive(request.getfixturevalue("database"))
