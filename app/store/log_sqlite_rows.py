"""The rows of the log in SQL: how an append is written, a repeat recognised, a page read and the chain checked.

Plain functions that run on a connection's thread inside the transaction of their caller; nothing here awaits, commits
or remembers. Positions, which spare an append every SELECT, are kept by `log_sqlite`.
"""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import count
from operator import itemgetter
from typing import NamedTuple

from app.core.errors import Corrupt
from app.store.event_log import SEPARATOR, Append, Page, Row
from app.store.log_sqlite_items import set_item
from app.store.rows import page, placed

_Events = tuple[int, Sequence[int], str]  # the seq that a row follows, its seqs, its joined events


class Piece(NamedTuple):
    """Where a stored row of pieces is; its text stays in the database."""

    id: int
    after: int
    through: int
    owner: str


@dataclass(slots=True)
class Position:
    """Where a log stands: newest epoch, last seq, last seq of its last lasting row, rows of pieces by `after`."""

    epoch: int
    head: int
    lasting: int
    pieces: list[Piece] = field(default_factory=list)


def write_rows(
    connection: sqlite3.Connection, append: Append, lasting: int, ids: count[int]
) -> tuple[int, list[Piece]]:
    """Inserts the rows; returns the new `lasting` and where the pieces are. Raises Corrupt when a row is there."""
    lasting_rows = []
    piece_rows = []
    pieces = []
    for after, row in placed(append):
        seqs, events = _packed(after, row)
        if row.owner is None:
            lasting_rows.append((append.conversation, after, row.through, lasting, append.epoch, seqs, events))
            lasting = row.through
        else:
            piece = Piece(next(ids), after, row.through, row.owner)
            pieces.append(piece)
            piece_rows.append(
                (piece.id, append.conversation, after, row.through, row.owner, append.epoch, seqs, events)
            )
    if lasting_rows:
        try:
            connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)", lasting_rows)
        except sqlite3.IntegrityError as error:
            raise Corrupt(f"{append.conversation}: beyond its end the log has a row after {append.after}") from error
    if piece_rows:
        connection.executemany("INSERT INTO log_pieces VALUES (?, ?, ?, ?, ?, ?, ?, ?)", piece_rows)
    if append.runs:
        runs = [(run, append.conversation) for run in append.runs]
        connection.executemany("INSERT OR REPLACE INTO log_runs (run, conversation) VALUES (?, ?)", runs)
    return lasting, pieces


def write_append(
    connection: sqlite3.Connection, append: Append, position: Position, ids: count[int]
) -> tuple[int, list[Piece]]:
    """Writes an append that is known to be next; returns as `write_rows`."""
    lasting, pieces = write_rows(connection, append, position.lasting, ids)
    if append.superseded:
        gone = [(piece.id,) for piece in position.pieces if piece.owner in append.superseded]
        connection.executemany("DELETE FROM log_pieces WHERE id = ?", gone)
    if append.item is not None:
        set_item(connection, append.item, append.epoch, lasting)
    elif (append.epoch, lasting) != (position.epoch, position.lasting):
        connection.execute(
            "UPDATE log_conversations SET epoch = ?, lasting = ? WHERE conversation = ?",
            (append.epoch, lasting, append.conversation),
        )
    return lasting, pieces


def holds(connection: sqlite3.Connection, append: Append) -> bool:
    """Whether every row of this append is stored, byte for byte. Slow for pieces, and rare."""
    for after, row in placed(append):
        table = "log" if row.owner is None else "log_pieces"
        stored = connection.execute(
            f"SELECT through, epoch, seqs, events FROM {table} WHERE conversation = ? AND after = ?",  # noqa: S608
            (append.conversation, after),
        ).fetchall()
        if stored != [(row.through, append.epoch, *_packed(after, row))]:
            return False
    return bool(append.rows)


def read_page(
    connection: sqlite3.Connection, conversation: str, after: int, bytes_max: int, position: Position
) -> Page:
    """One page up to `position.head`, which may be older than what the connection sees but never newer."""
    known = connection.execute("SELECT 1 FROM log_conversations WHERE conversation = ?", (conversation,)).fetchone()
    if known is None:
        raise KeyError(conversation)
    rows: Iterator[_Events] = _lasting(connection, conversation, after, position)
    if position.pieces:
        rows = merge(rows, _pieces(connection, conversation, position.pieces), key=itemgetter(0))
    return page(after, bytes_max, position.head, rows)


def check_tail(connection: sqlite3.Connection, conversation: str, lasting: int) -> None:
    """Raises Corrupt when the last lasting row is not where the conversation says."""
    query = "SELECT through FROM log WHERE conversation = ? ORDER BY after DESC LIMIT 1"
    (end,) = connection.execute(query, (conversation,)).fetchone() or (0,)
    if end != lasting:
        raise Corrupt(f"{conversation}: the log ends at {end} and should end at {lasting}")


def read_positions(connection: sqlite3.Connection, conversations: list[str] | None) -> dict[str, Position]:
    """Positions with their pieces, found by one scan; None = of all conversations that have pieces."""
    wanted = "true" if conversations is None else "conversation IN (SELECT value FROM json_each(?))"
    parameters = () if conversations is None else (json.dumps(conversations),)
    found: dict[str, Position] = {}
    scan = f"SELECT conversation, id, after, through, owner FROM log_pieces WHERE {wanted} ORDER BY id"  # noqa: S608
    for conversation, *piece in connection.execute(scan, parameters):
        found.setdefault(conversation, Position(0, 0, 0)).pieces.append(Piece(*piece))
    heads = {conversation: read_position(connection, conversation) for conversation in conversations or found}
    for conversation, position in heads.items():
        if position is not None and conversation in found:
            position.pieces = found[conversation].pieces
            position.head = max(position.head, position.pieces[-1].through)
    return {conversation: position for conversation, position in heads.items() if position is not None}


def read_position(connection: sqlite3.Connection, conversation: str) -> Position | None:
    """The position of a log without pieces."""
    row = connection.execute(
        "SELECT epoch, lasting FROM log_conversations WHERE conversation = ?", (conversation,)
    ).fetchone()
    return None if row is None else Position(row[0], row[1], row[1])


_ROWS_FROM = """
    SELECT after, through, prev, seqs, events FROM log
    WHERE conversation = ? AND after < ? AND after >= coalesce(
        (SELECT max(after) FROM log WHERE conversation = ? AND after <= ?), 0)
    ORDER BY after
"""


def _lasting(connection: sqlite3.Connection, conversation: str, cursor: int, position: Position) -> Iterator[_Events]:
    """Lasting rows from the one at or before the cursor on. Raises Corrupt where the chain breaks."""
    end: int | None = None
    for after, through, prev, seqs, events in connection.execute(
        _ROWS_FROM, (conversation, position.head, conversation, max(cursor, 0))
    ):
        if end is None:  # a row at or before the cursor is where the chain is taken up
            end = prev if after <= cursor else 0
        if prev != end or not prev <= after < through:
            raise Corrupt(f"{conversation}: row {after} to {through} does not follow {end}")
        end = through
        numbers = _numbers(conversation, after, through, seqs, events)
        if through > position.head:  # merged since the position was taken: what is newer is left out
            known = bisect_right(numbers, position.head)
            yield after, numbers[:known], SEPARATOR.join(events.split(SEPARATOR)[:known])
            return
        yield after, numbers, events
    if (end or 0) != position.lasting:
        raise Corrupt(f"{conversation}: the log ends at {end} and should end at {position.lasting}")


def _pieces(connection: sqlite3.Connection, conversation: str, pieces: list[Piece]) -> Iterator[_Events]:
    """Rows of pieces; those that were superseded in the meantime are gone, rightly."""
    for piece in pieces:
        row = connection.execute("SELECT seqs, events FROM log_pieces WHERE id = ?", (piece.id,)).fetchone()
        if row is not None:
            seqs, events = row
            yield piece.after, _numbers(conversation, piece.after, piece.through, seqs, events), events


def _packed(after: int, row: Row) -> tuple[str | None, str]:
    """`seqs` and `events` as they are stored."""
    gapless = row.seqs[0] == after + 1 and row.seqs[-1] == row.through and len(row.seqs) == row.through - after
    return None if gapless else ",".join(map(str, row.seqs)), SEPARATOR.join(row.texts)


def _numbers(conversation: str, after: int, through: int, seqs: str | None, events: str) -> Sequence[int]:
    """The seqs of a stored row. Raises Corrupt where they are not as many as its events."""
    numbers = range(after + 1, through + 1) if seqs is None else [int(seq) for seq in seqs.split(",")]
    if len(numbers) != (count := events.count(SEPARATOR) + 1):
        raise Corrupt(f"{conversation}: row {after} to {through} holds {count} events for {len(numbers)} numbers")
    return numbers
