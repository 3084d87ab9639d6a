"""Merging of rows: many small lasting rows of an old part of a log become few large ones.

An agent at work commits one or two events at a time, and a replay pays per row, not per event. Nothing that a reader
sees changes: only where the boundaries between stored rows lie. Plain functions on the writer's connection, inside its
transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from app.store.event_log import SEPARATOR
from app.store.log_sqlite_rows import Piece

MERGED_CHARS_MAX = 16_384
"""Characters of a row that has been merged from several."""

_ROWS = """
    SELECT after, through, epoch, seqs, events FROM log
    WHERE conversation = ? AND after >= ? AND through <= ? ORDER BY after
"""


class _Row(NamedTuple):
    after: int
    through: int
    epoch: int
    seqs: str | None
    events: str


def merge_rows(
    connection: sqlite3.Connection, conversation: str, after: int, through: int, pieces: list[Piece]
) -> None:
    """Merges the lasting rows that lie wholly after `after` and up to `through`, never across a row of pieces."""
    rows = map(_Row._make, connection.execute(_ROWS, (conversation, after, through)).fetchall())
    for group in _groups(rows, [piece.after for piece in pieces]):
        first, last = group[0], group[-1]
        connection.executemany(
            "DELETE FROM log WHERE conversation = ? AND after = ?", [(conversation, row.after) for row in group[1:]]
        )
        connection.execute(
            "UPDATE log SET through = ?, seqs = ?, events = ? WHERE conversation = ? AND after = ?",
            (last.through, _seqs(group), SEPARATOR.join(row.events for row in group), conversation, first.after),
        )


def _groups(rows: Iterator[_Row], pieces: list[int]) -> Iterator[list[_Row]]:
    """Neighbours of one epoch that fit into one row and have no row of pieces between them; at least two each."""
    group: list[_Row] = []
    size = 0
    for row in rows:
        between = group and any(group[0].after <= piece < row.after for piece in pieces)
        if group and (between or row.epoch != group[0].epoch or size + len(row.events) > MERGED_CHARS_MAX):
            if len(group) > 1:
                yield group
            group, size = [], 0
        group.append(row)
        size += len(row.events)
    if len(group) > 1:
        yield group


def _seqs(group: list[_Row]) -> str | None:
    """The seqs of a merged row as they are stored: None where none is missing."""
    adjoining = all(row.through == after.after for row, after in pairwise(group))
    if adjoining and all(row.seqs is None for row in group):
        return None
    return ",".join(row.seqs or ",".join(map(str, range(row.after + 1, row.through + 1))) for row in group)
