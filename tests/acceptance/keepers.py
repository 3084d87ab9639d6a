"""Agents that keep notes, through the product's public interface alone; their tools write the ledger of agents.py.

`keeper` writes them with the ready tools and with tools of its own, `master` asks an `apprentice` who writes them, too.
Nothing is asserted here.
"""

from __future__ import annotations

import asyncio
import time

from app.agent import Agent, ToolContext, checkpoint, save_note, tool

from .agents import _is_open, _write, reserve, tick


@tool(rerun="safe")
async def learn(line: str, ctx: ToolContext, gate: str = "") -> str:
    """Note something, and tell the ledger at once that it is noted; then wait."""
    await ctx.note("knowledge", f"learned {line}")
    _write(f"learn noted {line} {ctx.call_id}")
    while not _is_open(gate):
        await asyncio.sleep(0.01)
    return "learned"


@tool(rerun="safe")
def learn_sync(line: str, ctx: ToolContext, gate: str = "") -> str:
    """The same in a thread."""
    ctx.note_sync("knowledge", f"learned {line}")
    _write(f"learn_sync noted {line} {ctx.call_id}")
    while not _is_open(gate):
        time.sleep(0.01)
    return "learned"


@tool
async def survey(size: int, ctx: ToolContext) -> str:
    """Return a long text, and note where the whole of it is."""
    await ctx.note("environment", f"survey.txt has {size} characters, kept as {ctx.key}")
    return "0123456789abcdef" * (size // 16)


_tools = [save_note, checkpoint, learn, learn_sync, survey, tick, reserve]

keeper = Agent("keeper", "You are keeper.", tools=_tools)
apprentice = Agent("apprentice", "You are apprentice.", tools=[save_note, checkpoint])
master = Agent("master", "You are master.", tools=[save_note, apprentice.as_tool("Does the work")])
agents = [keeper, master]
