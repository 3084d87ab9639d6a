"""Runs `read_result` (core/reading.py): the bytes behind a reference, from the level's history or from what was kept.

A tool like any other for the runner, with slot, start, deadline and result; only what it reads is the house's own.
"""

from __future__ import annotations

from functools import partial

from app.actor.load import load
from app.actor.patience import until_stored
from app.agent.context import ToolError
from app.agent.tools import Tool
from app.core.catalogue import Rules
from app.core.effects import ToolCall
from app.core.reading import READ_RESULT, find, reading, reading_chars
from app.core.state import Level, Words
from app.core.window import window_chars
from app.store.event_log import EventLog


def reader(conversation: str, effect: ToolCall, level: Level, log: EventLog, rules: Rules) -> Tool:
    """The tool for one call. What the level's history holds is looked at now; what a snapshot has forgotten of it is
    looked for in the log, all of it."""
    history, chars_max = tuple(level.history), reading_chars(window_chars(level.context, rules))
    forgotten = level.context.forgotten

    async def read_result(reference: str, offset: int = 0, length: int = 0) -> str:
        item = find(history, reference)
        if item is None and forgotten:
            _, state = await until_stored(partial(load, log, conversation, whole=True))
            there = state.run.levels.get(effect.path) if state.run is not None else None
            item = find(there.history, reference) if there is not None else None
        if item is None:
            raise ToolError("error", f"Nothing is kept as {reference[:200]!r} here.")
        if isinstance(item, Words):
            return reading(item.text, offset, length, chars_max)
        kept = await until_stored(partial(log.kept, conversation, reference)) if item.truncated else None
        return reading(item.result if kept is None else kept, offset, length, chars_max)

    return Tool(read_result, name=READ_RESULT.name, rerun=READ_RESULT.rerun)
