"""What the author of a tool meets: the context of one call, and the exceptions at its edge.

Here are only values without behaviour of their own: no asyncio, no schema, no policy. How often progress reaches a
reader, what a confirmed stop is recorded as and when a call is given up is the runner's business.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Protocol

from app.core.codec import clean
from app.core.commands import Draft
from app.core.errors import HoldfastError
from app.core.events import NoteKind

MESSAGE_CHARS_MAX = 500
"""Characters of what is told of an exception."""

PROGRESS_CHARS_MAX = 500


class ConfigError(HoldfastError):
    """A tool, an agent or the setting that names them is declared wrongly; the message is one sentence."""


class Cancelled(HoldfastError):
    """Raised by a tool that saw `ctx.cancelled` and stopped without doing its work: the confirmation of a stop."""


class BadArguments(HoldfastError):
    """The arguments of a call do not fit its declaration; the message is a sentence that the model can act on."""


class ToolError(HoldfastError):
    """A call has no result. `kind`: `error`, `bad_arguments`, and `in_doubt` of one that was killed or given up.

    `message` has at most a few lines, without traceback, and is made for model and people.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class NoteRefused(HoldfastError):
    """A note was not saved: it is empty or too long, the conversation holds too many, or the call is over."""


class Notes(Protocol):
    """Where a call's notes go; both return when the note is durable. Raise NoteRefused."""

    async def save(self, draft: Draft) -> None: ...
    def save_and_wait(self, draft: Draft) -> None: ...


class ToolContext:
    """One call as its tool sees it.

    `key` names this call and no other, here or on any server, and stays the same when a `rerun="safe"` tool is run
    again: the idempotency key, and the name under which its result can be found again. `call_id` is the model's own id
    for it, which another run may use once more. `conversation_id` and `run_id` say where the call belongs. `safe` takes
    secrets out of a text, as it is done with whatever the tool says. All of it may be used from any thread.
    """

    __slots__ = ("_cancelled", "_notes", "_on_progress", "call_id", "conversation_id", "key", "run_id", "safe")

    def __init__(
        self,
        *,
        call_id: str,
        key: str,
        conversation_id: str,
        run_id: str,
        on_progress: Callable[[str | None, float | None], None],
        notes: Notes,
        cancelled: threading.Event,
        safe: Callable[[str], str] = clean,
    ) -> None:
        self.call_id = call_id
        self.key = key
        self.conversation_id = conversation_id
        self.run_id = run_id
        self._on_progress = on_progress
        self._notes = notes
        self._cancelled = cancelled
        self.safe = safe

    @property
    def cancelled(self) -> bool:
        """Whether somebody wants this call to stop. Raise `Cancelled` to confirm that it did."""
        return self._cancelled.is_set()

    def progress(self, text: str | None = None, fraction: float | None = None) -> None:
        """Shows how far the call is: `text` up to 500 characters, `fraction` from 0 to 1 (others are clamped).

        Costs next to nothing and never waits; reports in quick succession are merged, the latest wins.
        """
        if text is not None:
            text = self.safe(str(text))[:PROGRESS_CHARS_MAX]  # in this order: half a secret is not recognised
        if fraction is not None:
            fraction = float(fraction)
            fraction = None if math.isnan(fraction) else min(1.0, max(0.0, fraction))
        self._on_progress(text, fraction)

    async def note(self, kind: NoteKind, text: str) -> None:
        """Saves a note of the conversation, up to 4,000 characters; when this returns, no crash can lose it.

        It is put before the model from its next step on, for good. A repeated call (`rerun`) does not save it twice.
        Raises NoteRefused.
        """
        await self._notes.save(Draft(kind, text))

    def note_sync(self, kind: NoteKind, text: str) -> None:
        """As `note`, for tools that are no coroutines: waits in their thread."""
        self._notes.save_and_wait(Draft(kind, text))

    async def checkpoint(self, task: str, result: str, next: str | None = None) -> None:
        """Saves a progress note: this task is done, this came of it, and `next` is the task from now on."""
        await self._notes.save(Draft("progress", task=task, result=result, next=next))

    def _cancel(self) -> None:
        """For `Tool.run` only: asks the call to stop."""
        self._cancelled.set()
