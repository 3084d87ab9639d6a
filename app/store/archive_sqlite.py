"""The archive in the embedded database: the four tables of schema/002_archive.sql, which people read too.

A flush is one job of the writer, so it is all or nothing. Rows are written over by what a later flush knows and left
alone by an earlier one that comes late. What a person searches for is cut into words first, each of them quoted: no
input is ever syntax.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from app.core.codec import to_json
from app.core.events import Call, Failure, Usage
from app.store.archive import ENDED, ArchivedCall, ArchivedLevel, ArchivedMessage, ArchivedRun, Flush
from app.store.sqlite import Database
from app.store.words import words_of

_calls = msgspec.json.Decoder(list[Call])
_levels = msgspec.json.Decoder(list[ArchivedLevel])

_CONVERSATION = """
    INSERT INTO conversations (conversation, owner, agent, title, status, created_at, updated_at, through)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET
        owner = excluded.owner, agent = excluded.agent, title = excluded.title, status = excluded.status,
        created_at = excluded.created_at, updated_at = excluded.updated_at, through = excluded.through
    WHERE excluded.through >= through
"""
_RUN = """
    INSERT INTO runs (run, conversation, agent, status, started_at, finished_at, step, tokens_input, tokens_output,
        tokens_cached, estimated, cost, unpriced, levels, error_kind, error_message, result)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET
        conversation = excluded.conversation, agent = excluded.agent, status = excluded.status,
        started_at = excluded.started_at, finished_at = excluded.finished_at, step = excluded.step,
        tokens_input = excluded.tokens_input, tokens_output = excluded.tokens_output,
        tokens_cached = excluded.tokens_cached, estimated = excluded.estimated, cost = excluded.cost,
        unpriced = excluded.unpriced, levels = excluded.levels, error_kind = excluded.error_kind,
        error_message = excluded.error_message, result = excluded.result
    WHERE ?
"""
_MESSAGE = """
    INSERT INTO messages (conversation, seq, at, run, path, role, author, text, calls, call)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (conversation, seq) DO UPDATE SET
        at = excluded.at, run = excluded.run, path = excluded.path, role = excluded.role, author = excluded.author,
        text = excluded.text, calls = excluded.calls, call = excluded.call
    WHERE ?
"""
_CALL = """
    INSERT INTO tool_calls (run, path, call, conversation, tool, arguments, status, result, error, settled, started_at,
        finished_at, ms)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET
        conversation = iif(excluded.settled IS NULL, excluded.conversation, conversation),
        tool = coalesce(excluded.tool, tool), arguments = coalesce(excluded.arguments, arguments),
        status = coalesce(excluded.status, status), result = coalesce(excluded.result, result),
        error = coalesce(excluded.error, error), settled = coalesce(excluded.settled, settled),
        started_at = coalesce(excluded.started_at, started_at),
        finished_at = coalesce(excluded.finished_at, finished_at), ms = coalesce(excluded.ms, ms)
    WHERE ?
"""
_MESSAGES = """
    SELECT seq, at, run, path, role, author, text, calls, call FROM messages WHERE conversation = ? ORDER BY seq
"""
_RUNS = """
    SELECT run, conversation, agent, status, started_at, finished_at, step, tokens_input, tokens_output, tokens_cached,
        estimated, cost, unpriced, levels, error_kind, error_message, result
    FROM runs
"""
_FINISHED = f"""{_RUNS}
    WHERE status IN (SELECT value FROM json_each(?)) AND agent = coalesce(?, agent)
        AND conversation IN (SELECT conversation FROM conversations WHERE owner = ?)
        AND conversation NOT IN (SELECT value FROM json_each(?))
    ORDER BY coalesce(finished_at, started_at) DESC, run DESC
    LIMIT ?
"""  # noqa: S608
_SEARCH = """
    WITH found AS MATERIALIZED (SELECT rowid AS id, rank FROM messages_words WHERE messages_words MATCH ?)
    SELECT conversation
    FROM found JOIN messages USING (id) JOIN conversations USING (conversation)
    WHERE owner = ?
    GROUP BY conversation
    ORDER BY min(rank), updated_at DESC, conversation
    LIMIT ?
"""


class SqliteArchive:
    """The contract `Archive` in SQLite."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def flush(self, flush: Flush) -> None:
        await self._database.write(partial(_flush, flush=flush))

    async def messages(self, conversation: str) -> list[ArchivedMessage]:
        return [_message(row) for row in await self._rows(_MESSAGES, conversation)]

    async def runs(self, conversation: str) -> list[ArchivedRun]:
        query = f"{_RUNS} WHERE conversation = ? ORDER BY started_at, run"
        return [_run(row) for row in await self._rows(query, conversation)]

    async def run(self, run: str) -> ArchivedRun | None:
        return next((_run(row) for row in await self._rows(f"{_RUNS} WHERE run = ?", run)), None)

    async def finished(
        self, owner: str, *, agent: str | None, status: str | None, limit: int, without: Sequence[str] = ()
    ) -> list[ArchivedRun]:
        statuses, gone = to_json(ENDED if status is None else {status}.intersection(ENDED)), to_json(without)
        rows = await self._rows(_FINISHED, statuses, agent, owner, gone, max(limit, 0))
        return [_run(row) for row in rows]

    async def search(self, owner: str, words: str, limit: int) -> list[str]:
        wanted = words_of(words)
        if not wanted:
            return []
        quoted = " ".join(f'"{word}"' for word in wanted) + " *"
        return [conversation for (conversation,) in await self._rows(_SEARCH, quoted, owner, max(limit, 0))]

    async def remove(self, conversation: str) -> None:
        def remove(connection: sqlite3.Connection) -> None:
            for table in ("messages", "tool_calls", "runs", "conversations"):
                connection.execute(f"DELETE FROM {table} WHERE conversation = ?", (conversation,))  # noqa: S608

        await self._database.write(remove)

    async def _rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        return await self._database.read(lambda connection: connection.execute(query, parameters).fetchall())


def _flush(connection: sqlite3.Connection, flush: Flush) -> None:
    """On the writer's thread. `newest`: nothing later was flushed before, so existing rows are written over."""
    of = flush.conversation
    known = connection.execute(
        "SELECT through FROM conversations WHERE conversation = ?", (of.conversation,)
    ).fetchone()
    newest = known is None or flush.through >= known[0]
    connection.execute(
        _CONVERSATION,
        (of.conversation, of.owner, of.agent, of.title, of.status, of.created_at, of.updated_at, flush.through),
    )
    connection.executemany(_RUN, [(*_run_values(run), newest) for run in flush.runs])
    connection.executemany(
        _MESSAGE, [(of.conversation, *_message_values(message), newest) for message in flush.messages]
    )
    connection.executemany(_CALL, [(*_call_values(of.conversation, call), newest) for call in flush.calls])


def _run_values(run: ArchivedRun) -> tuple[object, ...]:
    usage, error = run.usage, run.error
    tokens = usage.input, usage.output, usage.cached, usage.estimated, usage.cost, usage.unpriced
    levels = msgspec.json.encode(run.levels).decode()
    failed = (None, None) if error is None else (error.kind, error.message)
    started = run.run, run.conversation, run.agent, run.status, run.started_at, run.finished_at, run.step
    return *started, *tokens, levels, *failed, run.result


def _run(row: tuple[Any, ...]) -> ArchivedRun:
    *plain, tokens_input, tokens_output, cached, estimated, cost, unpriced, levels, kind, message, result = row
    run, conversation, agent, status, started_at, finished_at, step = plain
    return ArchivedRun(
        run=run,
        conversation=conversation,
        agent=agent,
        status=status,
        started_at=started_at,
        finished_at=finished_at,
        step=step,
        usage=Usage(
            input=tokens_input,
            output=tokens_output,
            cached=cached,
            estimated=bool(estimated),
            cost=cost,
            unpriced=bool(unpriced),
        ),
        error=None if kind is None else Failure(kind=kind, message=message),
        result=result,
        levels=_levels.decode(levels),
    )


def _message_values(message: ArchivedMessage) -> tuple[object, ...]:
    calls = None if message.calls is None else msgspec.json.encode(message.calls).decode()
    place = message.seq, message.at, message.run, "/".join(message.path)
    return *place, message.role, message.author, message.text, calls, message.call


def _message(row: tuple[Any, ...]) -> ArchivedMessage:
    seq, at, run, path, role, author, text, calls, call = row
    return ArchivedMessage(
        seq=seq,
        at=at,
        run=run,
        path=tuple(path.split("/")) if path else (),
        role=role,
        author=author,
        text=text,
        calls=None if calls is None else _calls.decode(calls),
        call=call,
    )


def _call_values(conversation: str, call: ArchivedCall) -> tuple[object, ...]:
    told = call.tool, call.arguments, call.status, call.result, call.error, call.settled
    return call.run, "/".join(call.path), call.call, conversation, *told, call.started_at, call.finished_at, call.ms
