"""The log of a data directory for whoever only looks: beside the process that owns it, or without any.

No lock is taken, no start is counted, nothing is migrated or written; a short transaction per page, so that the owner's
write-ahead log can shrink. Synchronous: it is for programs that do one thing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from app.core.errors import Corrupt
from app.store.event_log import Unavailable
from app.store.log_sqlite_rows import check_tail, read_page, read_positions
from app.store.sqlite import BUSY_MS, FILE
from app.store.sqlite_hop import blame, transaction

PAGE_BYTES = 1_048_576


class ReadOnlyLog:
    """Every method may raise Unavailable or Corrupt."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def open(cls, directory: Path) -> Iterator[ReadOnlyLog]:
        """The log of this data directory. Raises Unavailable where there is none."""
        path = directory / FILE
        if not path.is_file():
            raise Unavailable(f"there is no {FILE} in {directory}")
        address = f"{path.absolute().as_uri()}?mode=ro"
        with _blamed(), closing(sqlite3.connect(address, BUSY_MS / 1000, isolation_level=None, uri=True)) as connection:
            connection.execute("PRAGMA query_only = ON")
            yield cls(connection)

    def conversations(self) -> list[str]:
        """All that are not deleted, oldest first."""
        query = "SELECT conversation FROM log_conversations WHERE deleted_at IS NULL ORDER BY created_at, conversation"
        with _blamed():
            return [conversation for (conversation,) in self._connection.execute(query)]

    def texts(self, conversation: str) -> Iterator[str]:
        """The events of a log as it stands now, its chain checked. Raises KeyError, Corrupt."""
        with _blamed(), transaction(self._connection, "BEGIN"):
            position = read_positions(self._connection, [conversation]).get(conversation)
            if position is None:
                raise KeyError(conversation)
            check_tail(self._connection, conversation, position.lasting)
        cursor = 0
        while cursor < position.head:
            with _blamed(), transaction(self._connection, "BEGIN"):
                page = read_page(self._connection, conversation, cursor, PAGE_BYTES, position)
            yield from page.texts
            if page.through <= cursor:
                raise Corrupt(f"{conversation}: the log ends at {cursor} and should end at {position.head}")
            cursor = page.through


@contextmanager
def _blamed() -> Iterator[None]:
    """No `sqlite3` error leaves the database."""
    try:
        yield
    except sqlite3.Error as error:
        raise blame(error) or Corrupt(f"the database cannot be read: {error}") from error
