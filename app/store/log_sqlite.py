"""The event log in the embedded database: the contract, spelled in jobs of the one writer and short reads.

Each append is a job of the next group commit, checked there against the `Position` of its log. The SQL is in
`log_sqlite_rows` and `log_sqlite_items`, what is kept in memory in `log_sqlite_positions`; nothing here may hold a
transaction across an await.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from operator import attrgetter

from app.core.errors import Conflict
from app.store.event_log import AlreadyCreated, Append, Head, Item, Page, Snapshot
from app.store.log_sqlite_items import (
    add_conversation,
    purge,
    read_deleted,
    read_item,
    read_items,
    read_next_wake,
    read_unfinished,
)
from app.store.log_sqlite_merge import merge_rows
from app.store.log_sqlite_positions import Positions, Written
from app.store.log_sqlite_rows import (
    Position,
    check_tail,
    holds,
    read_page,
    read_position,
    write_append,
    write_rows,
)
from app.store.rows import check, check_first, fence, torn
from app.store.sqlite import Database


class _Forgotten:
    """The position was forgotten while the append waited: nothing was written, load it and ask again."""


_Refusal = Conflict | AlreadyCreated
_Outcome = Written | _Refusal | _Forgotten | None  # None: a repeat, stored before


class SqliteLog:
    """The contract `EventLog` in SQLite. `start` must be awaited once, before anything else."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._positions = Positions(database)

    async def start(self) -> None:
        """Finds the pieces that a process before this one left."""
        await self._positions.start()

    # --- writing

    async def create(self, append: Append, log: str, owner: str) -> None:
        check_first(append)
        await self._write(append, partial(self._create, append=append, log=log, owner=owner))

    async def append(self, append: Append) -> None:
        check(append)
        outcome: _Outcome = _Forgotten()
        while isinstance(outcome, _Forgotten):
            await self._positions.get(append.conversation)
            outcome = await self._write(append, partial(self._append, append=append))

    async def _write(self, append: Append, job: partial[_Outcome]) -> _Outcome:
        outcome = await self._database.write(
            job,
            key=append.conversation,
            on_commit=self._committed,
            on_doubt=partial(self._positions.doubted, append.conversation),
        )
        if isinstance(outcome, _Refusal):
            raise outcome
        return outcome

    def _append(self, connection: sqlite3.Connection, append: Append) -> _Outcome:
        """On the writer's thread. A refusal is returned, not raised, so that it costs the group nothing."""
        position = self._positions.peek(append.conversation)
        if position is None:
            return _Forgotten()
        try:
            if not fence(append, position.epoch, position.head):
                return None if holds(connection, append) else torn(append)
        except Conflict as refusal:
            return refusal
        return Written(append, position, *write_append(connection, append, position, self._positions.ids))

    def _create(self, connection: sqlite3.Connection, append: Append, log: str, owner: str) -> _Outcome:
        """On the writer's thread, as `_append`."""
        known = connection.execute(
            "SELECT log FROM log_conversations WHERE conversation = ?", (append.conversation,)
        ).fetchone()
        if known == (log,):
            return None if holds(connection, append) else torn(append)
        first = connection.execute(
            "SELECT conversation, creation_run FROM log_conversations WHERE creation_owner = ? AND creation = ?",
            (owner, append.creation),
        ).fetchone()
        if first is not None:
            return AlreadyCreated(*first)
        if known is not None:
            return torn(append)
        lasting, pieces = write_rows(connection, append, 0, self._positions.ids)
        add_conversation(connection, append, log, owner, lasting)
        kept = [(append.conversation, ref, text) for ref, text in append.kept]
        connection.executemany("INSERT INTO log_kept (conversation, ref, text) VALUES (?, ?, ?)", kept)
        return Written(append, Position(append.epoch, 0, 0), lasting, pieces)

    def _committed(self, outcome: _Outcome) -> None:
        if isinstance(outcome, Written):
            self._positions.committed(outcome)

    # --- reading

    async def head(self, conversation: str) -> Head:
        def read(connection: sqlite3.Connection) -> tuple[str, bool] | None:
            query = "SELECT log, deleted_at IS NOT NULL, lasting FROM log_conversations WHERE conversation = ?"
            row = connection.execute(query, (conversation,)).fetchone()
            if row is None:
                return None
            check_tail(connection, conversation, row[2])
            return row[0], bool(row[1])

        position = await self._positions.get(conversation)
        found = await self._database.read(read)
        if found is None:
            raise KeyError(conversation)
        log, deleted = found
        return Head(log, position.epoch, position.head, deleted)

    async def read(self, conversation: str, after: int, bytes_max: int) -> Page:
        position = await self._positions.get(conversation)
        if after >= position.head:
            return Page(after, after, position.head)
        # A copy: the next commit may change the position while the page is being read.
        pieces = position.pieces[bisect_right(position.pieces, after, key=attrgetter("through")) :]
        upto = Position(position.epoch, position.head, position.lasting, pieces)
        return await self._database.read(lambda connection: read_page(connection, conversation, after, bytes_max, upto))

    async def items(
        self,
        owner: str,
        *,
        limit: int,
        status: str | None = None,
        before: tuple[int, str] | None = None,
        title: str | None = None,
        among: Sequence[str] = (),
    ) -> list[tuple[Item, int]]:
        found = await self._database.read(
            lambda connection: read_items(connection, owner, limit, status, before, title, among)
        )
        return [(item, await self._positions.head(item.conversation, lasting)) for item, lasting in found]

    async def item(self, conversation: str) -> tuple[Item, int]:
        found = await self._database.read(partial(read_item, conversation=conversation))
        if found is None:
            raise KeyError(conversation)
        item, lasting = found
        return item, await self._positions.head(conversation, lasting)

    async def find_run(self, run: str) -> str | None:
        query = "SELECT conversation FROM log_runs WHERE run = ?"
        row = await self._database.read(lambda connection: connection.execute(query, (run,)).fetchone())
        return None if row is None else str(row[0])

    async def unfinished(self, now: int) -> list[str]:
        return await self._database.read(partial(read_unfinished, now=now))

    async def next_wake(self) -> int | None:
        return await self._database.read(read_next_wake)

    # --- deleting and keeping

    async def _change(self, conversation: str, statement: str, *parameters: object) -> bool:
        """One statement about an existing conversation; whether it changed a row. Raises KeyError."""

        def change(connection: sqlite3.Connection) -> tuple[bool, bool]:
            changed = connection.execute(statement, parameters).rowcount > 0
            return changed, changed or read_position(connection, conversation) is not None

        changed, known = await self._database.write(change)
        if not known:
            raise KeyError(conversation)
        return changed

    async def delete(self, conversation: str, at: int) -> None:
        statement = "UPDATE log_conversations SET deleted_at = coalesce(deleted_at, ?) WHERE conversation = ?"
        await self._change(conversation, statement, at, conversation)

    async def restore(self, conversation: str, since: int) -> bool:
        statement = "UPDATE log_conversations SET deleted_at = NULL WHERE conversation = ? AND deleted_at >= ?"
        return await self._change(conversation, statement, conversation, since)

    async def deleted(self, until: int) -> list[str]:
        return await self._database.read(partial(read_deleted, until=until))

    async def purge(self, until: int) -> list[str]:
        return await self._database.write(partial(purge, until=until), alone=True, on_commit=self._positions.removed)

    async def keep(self, conversation: str, ref: str, text: str) -> None:
        statement = (
            "INSERT OR REPLACE INTO log_kept (conversation, ref, text)"
            " SELECT conversation, ?, ? FROM log_conversations WHERE conversation = ?"
        )
        await self._change(conversation, statement, ref, text, conversation)

    async def kept(self, conversation: str, ref: str) -> str | None:
        query = (
            "SELECT text FROM log_conversations AS known LEFT JOIN log_kept AS kept"
            " ON kept.conversation = known.conversation AND kept.ref = ? WHERE known.conversation = ?"
        )
        row = await self._database.read(lambda connection: connection.execute(query, (ref, conversation)).fetchone())
        if row is None:
            raise KeyError(conversation)
        text: str | None = row[0]
        return text

    async def save_snapshot(self, conversation: str, snapshot: Snapshot) -> None:
        statement = (
            "INSERT OR REPLACE INTO log_snapshots (conversation, log, through, stamp, state)"
            " SELECT conversation, ?, ?, ?, ? FROM log_conversations WHERE conversation = ?"
        )
        values = (snapshot.log, snapshot.through, snapshot.stamp, snapshot.state)
        await self._change(conversation, statement, *values, conversation)

    async def snapshot(self, conversation: str) -> Snapshot | None:
        query = (
            "SELECT kept.log, through, stamp, state FROM log_conversations AS known LEFT JOIN log_snapshots AS kept"
            " ON kept.conversation = known.conversation WHERE known.conversation = ?"
        )
        row = await self._database.read(lambda connection: connection.execute(query, (conversation,)).fetchone())
        if row is None:
            raise KeyError(conversation)
        return None if row[0] is None else Snapshot(*row)

    async def merge(self, conversation: str, after: int, through: int) -> None:
        position = await self._positions.get(conversation)

        def merge(connection: sqlite3.Connection) -> None:
            pieces = (self._positions.peek(conversation) or position).pieces
            merge_rows(connection, conversation, after, through, pieces)

        await self._database.write(merge, key=conversation)

    async def kept_refs(self, conversation: str) -> list[str]:
        query = (
            "SELECT kept.ref FROM log_conversations AS known LEFT JOIN log_kept AS kept"
            " ON kept.conversation = known.conversation WHERE known.conversation = ? ORDER BY kept.ref"
        )
        rows = await self._database.read(lambda connection: connection.execute(query, (conversation,)).fetchall())
        if not rows:
            raise KeyError(conversation)
        return [ref for (ref,) in rows if ref is not None]

    async def writable(self) -> bool:
        return await self._database.writable()
