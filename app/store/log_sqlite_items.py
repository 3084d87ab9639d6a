"""The list items of conversations in SQL, kept in the row that also holds where the log stands.

Plain functions that run on a connection's thread inside the transaction of their caller. What a person typed reaches
SQL as a parameter only.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

from app.store.event_log import Append, Item

_INTEGER_MAX = 2**63 - 1  # SQLite's; a cursor from outside may be larger
_COLUMNS = [each.name for each in fields(Item) if each.name != "conversation"]
_LIST = ", ".join(_COLUMNS)
_values = attrgetter(*_COLUMNS)

_INSERT = f"""
    INSERT INTO log_conversations (conversation, log, epoch, lasting, creation_owner, creation, creation_run, {_LIST})
    VALUES (?, ?, ?, ?, ?, ?, ?, {", ".join("?" * len(_COLUMNS))})
"""  # noqa: S608
_UPDATE = f"""
    UPDATE log_conversations SET epoch = ?, lasting = ?, {", ".join(f"{name} = ?" for name in _COLUMNS)}
    WHERE conversation = ?
"""  # noqa: S608
_BESIDE = ("log", "log_pieces", "log_runs", "log_kept", "log_snapshots")
_SELECT = f"SELECT conversation, {_LIST}, lasting FROM log_conversations "  # noqa: S608


def add_conversation(connection: sqlite3.Connection, append: Append, log: str, owner: str, lasting: int) -> None:
    """The row of a new conversation, from its first append."""
    run = append.runs[0] if append.runs else None
    creation = (None, None, None) if append.creation is None else (owner, append.creation, run)
    connection.execute(_INSERT, (append.conversation, log, append.epoch, lasting, *creation, *_values(append.item)))


def set_item(connection: sqlite3.Connection, item: Item, epoch: int, lasting: int) -> None:
    """Replaces the item, and where the log stands with it."""
    connection.execute(_UPDATE, (epoch, lasting, *_values(item), item.conversation))


def read_item(connection: sqlite3.Connection, conversation: str) -> tuple[Item, int] | None:
    """The item and its `lasting`."""
    row = connection.execute(f"{_SELECT} WHERE conversation = ?", (conversation,)).fetchone()
    return None if row is None else _item(row)


def read_items(
    connection: sqlite3.Connection,
    owner: str,
    limit: int,
    status: str | None,
    before: tuple[int, str] | None,
    title: str | None,
    among: Sequence[str],
) -> list[tuple[Item, int]]:
    """The page of a list, newest first, each with its `lasting`."""
    where = ["owner = ?", "deleted_at IS NULL"]
    parameters: list[Any] = [owner]
    if status is not None:
        where.append("status = ?")
        parameters.append(status)
    if before is not None:
        where.append("(created_at, conversation) < (?, ?)")
        parameters.extend((min(before[0], _INTEGER_MAX), before[1]))
    if title is not None:
        where.append("(instr(folded(title), ?) OR conversation IN (SELECT value FROM json_each(?)))")
        parameters.extend((title.casefold(), json.dumps(list(among))))
    query = f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY created_at DESC, conversation DESC LIMIT ?"
    return [_item(row) for row in connection.execute(query, (*parameters, min(max(limit, 0), _INTEGER_MAX)))]


def read_unfinished(connection: sqlite3.Connection, now: int) -> list[str]:
    """Conversations with work in flight, or whose time has come."""
    rows = connection.execute(
        "SELECT conversation FROM log_conversations WHERE deleted_at IS NULL AND (busy OR wake_at <= ?)"
        " ORDER BY created_at, conversation",
        (now,),
    )
    return [conversation for (conversation,) in rows]


def read_next_wake(connection: sqlite3.Connection) -> int | None:
    """The earliest time of all conversations."""
    query = "SELECT min(wake_at) FROM log_conversations WHERE wake_at IS NOT NULL AND deleted_at IS NULL"
    wake_at: int | None = connection.execute(query).fetchone()[0]
    return wake_at


def read_deleted(connection: sqlite3.Connection, until: int) -> list[str]:
    """What was deleted before `until`."""
    query = "SELECT conversation FROM log_conversations WHERE deleted_at < ? ORDER BY conversation"
    return [conversation for (conversation,) in connection.execute(query, (until,))]


def purge(connection: sqlite3.Connection, until: int) -> list[str]:
    """Removes every trace of what was deleted before `until`."""
    gone = read_deleted(connection, until)
    for table in (*_BESIDE, "log_conversations") if gone else ():
        connection.execute(
            f"DELETE FROM {table} WHERE conversation IN (SELECT value FROM json_each(?))",  # noqa: S608
            (json.dumps(gone),),
        )
    return gone


def _item(row: tuple[Any, ...]) -> tuple[Item, int]:
    conversation, *values, lasting = row
    named = dict(zip(_COLUMNS, values, strict=True))
    named["busy"] = bool(named["busy"])
    return Item(conversation=conversation, **named), lasting
