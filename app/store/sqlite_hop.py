"""One hop to a connection's own thread, one transaction there, and whom to blame when SQLite refuses.

aiosqlite's public calls cost a hop (about 43 µs) per statement; a whole transaction must be one. This is the only file
that knows aiosqlite's private parts, and a test fails when a new version moves them. What SQLite raises is translated
here; no `sqlite3` error may leave the database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

import aiosqlite

from app.core.errors import Corrupt
from app.store.event_log import Unavailable

T = TypeVar("T")

_OUT_OF_ORDER = {
    sqlite3.SQLITE_BUSY: "it is locked by another program",
    sqlite3.SQLITE_LOCKED: "it is locked",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk does not read or write",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_PERM: "the file may not be opened",
    sqlite3.SQLITE_PROTOCOL: "its lock cannot be taken",
    sqlite3.SQLITE_NOMEM: "there is no memory",
    sqlite3.SQLITE_INTERRUPT: "the answer took too long",
}
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def connect(path: Path, busy_ms: int) -> aiosqlite.Connection:
    """A connection that is opened by awaiting it; `busy_ms` is how long a statement waits for a lock."""
    connection = aiosqlite.connect(path, timeout=busy_ms / 1000, isolation_level=None, cached_statements=256)
    connection._thread.daemon = True  # otherwise a process that fails before `close` never ends
    return connection


async def hop(connection: aiosqlite.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Runs `work` on the connection's thread and returns, or raises, what it does. Cancelling does not stop it."""
    raw = connection._conn
    return cast(T, await connection._execute(work, raw))  # type: ignore[no-untyped-call]


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """All or nothing, on the connection's thread."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def primary_code(error: BaseException) -> int:
    """SQLite's result code without its extension; 0 for what did not come from SQLite."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF if isinstance(error, sqlite3.Error) else 0


def blame(error: BaseException) -> Unavailable | Corrupt | None:
    """What an error says about the store; None when it says something about our own code."""
    code = primary_code(error)
    if code in _DAMAGED:
        return Corrupt(f"the database file is damaged ({error}): restore the newest good backup")
    if code in _OUT_OF_ORDER:
        return Unavailable(f"the database does not answer: {_OUT_OF_ORDER[code]} ({error})")
    return None
