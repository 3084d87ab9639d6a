"""Notices that an older database was put back, so that no reader goes on with a cursor of a future that never was.

A counter in the database and one in a file beside it grow together: at each start, once a minute while something is
written, and at the end; the database always first. File ahead of database: the database is a copy from before, so every
conversation gets a new log id and every reader of an old one starts over (SEMANTICS.md §11). Database ahead of file, or
no file: a crash between the two, or a copied database; nothing was lost. The minute is there because the usual copy is
made while the process that it will replace is running; at starts alone both would show the same number.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

from app.store.sqlite_hop import transaction

FILE = "boot"

STALE = "stale"
"""What the database says of itself until the runs of an older copy have been stopped, over crashes too."""

_SET = "INSERT OR REPLACE INTO holdfast (name, value) VALUES ('boot', ?)"


def count_start(connection: sqlite3.Connection, directory: Path) -> bool:
    """Counts a start, on the connection's thread; True when an older database was noticed. Durable on return."""
    inside, beside = _inside(connection), _beside(directory)
    older = beside > inside
    count = max(beside, inside) + 1
    with transaction(connection):
        connection.execute(_SET, (count,))
        if older:
            conversations = connection.execute("SELECT conversation FROM log_conversations").fetchall()
            connection.executemany(
                "UPDATE log_conversations SET log = ? WHERE conversation = ?",
                [(secrets.token_urlsafe(16), conversation) for (conversation,) in conversations],
            )
            connection.execute("INSERT OR REPLACE INTO holdfast (name, value) VALUES (?, 1)", (STALE,))
    write_beside(directory, count)
    return older


def is_stale(connection: sqlite3.Connection) -> bool:
    """Whether an older copy was put back whose runs have not been stopped yet."""
    return connection.execute("SELECT 1 FROM holdfast WHERE name = ?", (STALE,)).fetchone() is not None


def settle(connection: sqlite3.Connection) -> None:
    """They have been stopped."""
    connection.execute("DELETE FROM holdfast WHERE name = ?", (STALE,))


def count_on(connection: sqlite3.Connection) -> int:
    """Counts inside a transaction of the caller; the number is for `write_beside`, after the commit."""
    count = _inside(connection) + 1
    connection.execute(_SET, (count,))
    return count


def put_ahead(directory: Path, copy: Path) -> None:
    """Before a copy becomes the database: the file is ahead of it. Raises OSError, sqlite3.Error."""
    with closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        write_beside(directory, max(_beside(directory), _inside(connection)) + 1)


def write_beside(directory: Path, count: int) -> None:
    """Replaces the file so that a power loss leaves the old or the new number, never half of one. Raises OSError."""
    fresh = directory / f"{FILE}.new"
    with fresh.open("w", encoding="ascii") as target:
        target.write(f"{count}\n")
        target.flush()
        os.fsync(target.fileno())
    fresh.rename(directory / FILE)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _inside(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM holdfast WHERE name = 'boot'").fetchone()
    return 0 if row is None else int(row[0])


def _beside(directory: Path) -> int:
    try:
        return int((directory / FILE).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 0
