"""Brings a database to the schema of this version: files `NNN_name.sql`, in order, each once.

A file runs in one transaction that also records its name and, last, sets `user_version` to its number: a crash in the
middle leaves nothing, the next start completes it. A step that older versions cannot live with starts a new hundred
(101, 201); they refuse such a database, while 002 after 001 does not trouble them. A released file is never changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from app.core.errors import HoldfastError
from app.store.sqlite_hop import transaction

SCHEMA = Path(__file__).parent / "schema"

_RECORD = "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT"


class NewerSchema(HoldfastError):
    """The database was written by a newer version that this one would damage."""


def migrate(connection: sqlite3.Connection, folder: Path = SCHEMA) -> list[str]:
    """Runs what is missing, on the connection's thread; returns the names. Raises NewerSchema."""
    known = {int(file.name[:3]): file for file in sorted(folder.glob("[0-9][0-9][0-9]_*.sql"))}
    (stored,) = connection.execute("PRAGMA user_version").fetchone()
    newest = max(known, default=0)
    if stored // 100 > newest // 100:
        raise NewerSchema(
            f"the database has schema {stored} and this version of Holdfast knows no further than {newest}: "
            "start the newer version, or restore a backup from before the upgrade"
        )
    connection.execute(_RECORD)
    done = {name for (name,) in connection.execute("SELECT name FROM migrations")}
    missing = [number for number, file in known.items() if file.name not in done]
    for number in missing:
        _run(connection, known[number], number, max(stored, number))
    return [known[number].name for number in missing]


def _run(connection: sqlite3.Connection, file: Path, number: int, version: int) -> None:
    with transaction(connection):
        for statement in _statements(file.read_text(encoding="utf-8")):
            connection.execute(statement)
        connection.execute("INSERT INTO migrations (name, number) VALUES (?, ?)", (file.name, number))
        connection.execute(f"PRAGMA user_version = {version:d}")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, each ended by a semicolon: `executescript` would commit on its own."""
    statement = ""
    for part in script.split(";")[:-1]:
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
