"""Agents that read more than a small window holds, by the product's public interface alone, and their model's part.

A page is lines that say where they stand; what the model does next follows from the highest page that its request
mentions, so that a request which was made again, or whose history was summarised, leads on just the same.
"""

from __future__ import annotations

import json
import re

from app.agent import Agent, ToolContext, tool

from .agents import _act, reserve
from .history import Json
from .parts import Brain
from .stub import Answer, Call, Use, say, text_of, use

PAGE_LINES = 130
_page = re.compile(r"page (\d+)\b")


def page_text(number: int, lines: int = PAGE_LINES) -> str:
    return "\n".join(f"page {number} line {line} says {number * 7919 + line * 104729:010d}" for line in range(lines))


@tool(rerun="safe")
async def read_page(number: int, ctx: ToolContext, lines: int = PAGE_LINES) -> str:
    """Read a page."""
    await _act("read_page", str(number), "", ctx)
    return page_text(number, lines)


scholar = Agent("scholar", "You are scholar.", tools=[read_page, reserve])
librarian = Agent("librarian", "You are librarian.", tools=[read_page, scholar.as_tool("Reads for you")])


def is_summary(call: Call) -> bool:
    """Whether this request is the house's own, for a summary."""
    return text_of(call.messages[0]).startswith("You condense the history")


def tokens(call: Call) -> int:
    """A request as a provider might count it: four characters a token, messages and tools."""

    def size(value: Json | list[Json]) -> int:
        return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    return (size(call.messages) + size(call.body.get("tools", []))) // 4


def reached(call: Call) -> int:
    """The highest page that a request mentions."""
    texts = [text_of(message) + json.dumps(message.get("tool_calls", "")) for message in call.messages]
    read = [int(number) for text in texts for number in _page.findall(text)]
    return max(read, default=0)


def summary(call: Call) -> Answer:
    """What a model makes of it: how far the reading is, and every decision and failure that it was told of."""
    kept = sorted(set(re.findall(r"(?:Decision|Failed): [^\n]*", text_of(call.messages[1]))))
    call.usage = tokens(call), 60
    return say("\n".join([f"Read so far: up to page {reached(call)}.", *kept]))


def reading(pages: int) -> Brain:
    """Reads page after page, thinks aloud at two of them, then says how far it came."""
    aloud = {2: "Decision: SQL, because the data is relational.", 3: "Failed: the index at the back, it lies."}

    def brain(call: Call) -> Answer:
        if is_summary(call):
            return summary(call)
        call.usage = tokens(call), 20
        number = reached(call)
        if number >= pages:
            return say(f"Read {number} pages.")
        return use(Use("read_page", {"number": number + 1}), text=aloud.get(number, ""))

    return brain
