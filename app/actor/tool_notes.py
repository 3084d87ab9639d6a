"""Notes on their way from a tool to the log: whoever saves one goes on when it is durable, and not before.

A note is a command like any other; its answer is the commit of `note.saved`, or the reason why there is none. While the
store cannot be written the note waits, and the tool with it. One note of a call is under way at a time, so that no tool
can fill the mailbox.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from app.actor.patience import answer_of
from app.agent.context import NoteRefused
from app.core.commands import Draft, SaveNote
from app.core.effects import ToolCall
from app.core.errors import Rejected


class ToolNotes:
    """The notes of one try of a call, numbered as the tool gives them. Satisfies `agent.context.Notes`."""

    def __init__(
        self, effect: ToolCall, submit: Callable[[Any], asyncio.Future[Any]], safe: Callable[[str], str]
    ) -> None:
        self._effect = effect
        self._submit = submit
        self._safe = safe
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._under_way = asyncio.Lock()

    async def save(self, draft: Draft) -> None:
        """From the loop. Raises NoteRefused, Unavailable."""
        await self._saved(self._command(draft))

    def save_and_wait(self, draft: Draft) -> None:
        """From a thread. Raises as `save`, and RuntimeError on the loop, which would wait for itself."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run_coroutine_threadsafe(self._saved(self._command(draft)), self._loop).result()
        else:
            raise RuntimeError("An async tool awaits ctx.note; ctx.note_sync is for tools in threads.")

    def _command(self, draft: Draft) -> SaveNote:
        texts = {name: getattr(draft, name) for name in ("text", "task", "result", "next")}
        safe = {name: self._safe(str(text)) for name, text in texts.items() if text is not None}
        return SaveNote(self._effect, next(self._numbers), replace(draft, **safe))

    async def _saved(self, command: SaveNote) -> None:
        async with self._under_way:
            outcome = await answer_of(self._submit(command))
        if isinstance(outcome, Rejected):
            raise NoteRefused(outcome.message)
