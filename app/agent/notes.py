"""Ready tools with which a model writes notes: `Agent("a", tools=[save_note, checkpoint])`.

Tools like anybody's, over `ctx.note` and `ctx.checkpoint`. A crash in the middle of one runs it again and saves nothing
twice, and there is nothing in them that a hint would have to stop.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.agent.context import ToolContext
from app.agent.tools import tool
from app.core.bounds import NOTE_CHARS_MAX
from app.core.events import NoteKind


@tool(rerun="safe", interruptible=False)
async def save_note(
    kind: NoteKind, text: Annotated[str, Field(min_length=1, max_length=NOTE_CHARS_MAX)], ctx: ToolContext
) -> str:
    """Save a note that stays before you for the whole conversation, also when older messages are no longer there.

    Args:
        kind: progress (what is done or next), knowledge (what you have learned, also what failed), environment (files
            changed, outputs and where they are), decision (what was decided, and why)
        text: the note; it has to make sense without the messages around it
    """
    await ctx.note(kind, text)
    return "saved"


@tool(rerun="safe", interruptible=False)
async def checkpoint(task: str, result: str, ctx: ToolContext, next: str | None = None) -> str:
    """Record that a task is done. The record stays before you for the whole conversation.

    Args:
        task: the task that is done
        result: what came of it
        next: the task that you work on from now on, if there is one
    """
    await ctx.checkpoint(task, result, next)
    return "saved"
