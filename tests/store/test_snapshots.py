"""Snapshots beside the log, against every variant: kept as given, one per conversation, gone with it. FAULTS 29."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from app.store.event_log import Append, EventLog, Snapshot
from tests.store.builders import make, opened, row, whole

SNAPSHOT = Snapshot("log-c", 2, "code", bytes(range(256)) * 1_000)


async def test_the_last_one_is_given_back_as_it_was(log: EventLog) -> None:
    """FAULTS 29: whatever it says; who reads it judges it."""
    await make(log, "c")
    await make(log, "d")
    assert await log.snapshot("c") is None
    await log.save_snapshot("c", SNAPSHOT)
    assert await log.snapshot("c") == SNAPSHOT
    for other in (replace(SNAPSHOT, state=b""), replace(SNAPSHOT, log="another", through=10**12), SNAPSHOT):
        await log.save_snapshot("c", other)
        assert await log.snapshot("c") == other
    assert await log.snapshot("d") is None


async def test_the_log_does_not_notice(log: EventLog) -> None:
    await make(log, "c")
    before = await log.head("c"), await log.item("c")
    await log.save_snapshot("c", SNAPSHOT)
    assert (await log.head("c"), await log.item("c")) == before and await whole(log) == [1, 2]
    await log.append(Append("c", 2, 1, (row([3]),)))
    assert await log.snapshot("c") == SNAPSHOT


async def test_it_goes_with_its_conversation(log: EventLog) -> None:
    """FAULTS 29, 74: hidden with it, restored with it, removed with it, and no other log inherits it."""
    await make(log, "c")
    await make(log, "d")
    for conversation in ("c", "d"):
        await log.save_snapshot(conversation, SNAPSHOT)
    await log.delete("c", 5)
    assert await log.restore("c", 5) and await log.snapshot("c") == SNAPSHOT
    await log.delete("c", 5)
    assert await log.purge(6) == ["c"]
    await make(log, "c")
    assert await log.snapshot("c") is None and await log.snapshot("d") == SNAPSHOT


async def test_nobody_has_no_snapshot(log: EventLog) -> None:
    for call in (log.snapshot("nobody"), log.save_snapshot("nobody", SNAPSHOT)):
        with pytest.raises(KeyError):
            await call


async def test_it_is_there_after_a_restart_and_may_be_removed_by_hand(tmp_path: Path) -> None:
    """FAULTS 29: a cache, as its table says: without it all goes on."""
    async with opened(tmp_path) as log:
        await make(log, "c")
        await log.save_snapshot("c", SNAPSHOT)
    async with opened(tmp_path) as log:
        assert await log.snapshot("c") == SNAPSHOT
    with closing(sqlite3.connect(tmp_path / "holdfast.db")) as connection, connection:
        assert connection.execute("DELETE FROM log_snapshots").rowcount == 1
    async with opened(tmp_path) as log:
        assert await log.snapshot("c") is None and await whole(log) == [1, 2]
