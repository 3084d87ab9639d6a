"""What people who write SQL are promised: documented tables, valid JSON, readable views, fast paths, all or nothing."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from app.store.archive_sqlite import SqliteArchive
from app.store.sqlite import Database
from app.store.sqlite_migrations import SCHEMA
from tests.store.test_archive import WHOLE, flush, message, run


def connect(tmp_path: Path) -> sqlite3.Connection:
    """As people do it: another program, read-only, while the server runs."""
    return sqlite3.connect(f"{(tmp_path / 'data' / 'holdfast.db').as_uri()}?mode=ro", uri=True)


async def test_people_can_read_it_while_the_server_runs(database: Database, tmp_path: Path) -> None:
    await SqliteArchive(database).flush(flush(7, *WHOLE))
    people = connect(tmp_path)
    tools = people.execute(
        "SELECT json_extract(value, '$.tool') FROM messages, json_each(messages.calls) WHERE role = 'assistant'"
    ).fetchall()
    assert tools == [("find",)]
    spoken = people.execute(
        "SELECT speaker, at_utc, text FROM transcripts ORDER BY conversation, seq LIMIT 1"
    ).fetchall()
    assert spoken == [("ann", "1970-01-01 00:00:00", "Can you order dinner?")]
    assert people.execute("SELECT path FROM messages WHERE role = 'tool'").fetchall() == [("k0/k9",)]
    words = "SELECT seq FROM messages WHERE id IN (SELECT rowid FROM messages_words WHERE text MATCH 'dinner')"
    assert people.execute(words).fetchall() == [(1,)]
    people.close()


async def test_every_column_is_explained(database: Database, tmp_path: Path) -> None:
    """The comment of a column is on its line, or on the line after it; SQLite forgets those of columns added later."""
    added = (SCHEMA / "003_spending.sql").read_text()
    people = connect(tmp_path)
    for table in ("conversations", "runs", "messages", "tool_calls"):
        [(sql,)] = people.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchall()
        for (column,) in people.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall():
            explained = re.search(rf"^ +{column} .*(--|\n +--)", sql + added, re.MULTILINE)
            assert explained, f"{table}.{column}"
    people.close()


async def test_a_flush_is_all_or_nothing(database: Database) -> None:
    """FAULTS 10: the last part of the flush cannot be stored, so no part is."""
    archive = SqliteArchive(database)
    with pytest.raises(UnicodeEncodeError):
        await archive.flush(flush(2, run(), message(1), message(2, "\ud800")))
    assert await archive.messages("c") == []
    assert await archive.run("r") is None
    await archive.flush(flush(2, run(), message(1)))
    assert len(await archive.messages("c")) == 1


async def test_history_and_lists_need_no_full_scan(database: Database) -> None:
    def plan(connection: sqlite3.Connection) -> list[str]:
        queries = (
            "SELECT * FROM messages WHERE conversation = 'c' ORDER BY seq",
            "SELECT * FROM runs WHERE conversation = 'c' ORDER BY started_at, run",
            "SELECT * FROM runs WHERE run = 'r'",
            "SELECT * FROM tool_calls WHERE conversation = 'c'",
            "SELECT * FROM conversations WHERE owner = 'ann' ORDER BY updated_at DESC",
        )
        return [step[3] for query in queries for step in connection.execute(f"EXPLAIN QUERY PLAN {query}")]

    steps = await database.read(plan)
    assert not [step for step in steps if step.startswith("SCAN")], steps
