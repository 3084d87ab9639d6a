"""How a level's history is told to its model: whole, in short with a reference, or as a summary. A view, nothing more.

The history itself stays whole in the log, and in the state unless a snapshot has forgotten a part of it that is told no
more (snapshot.py); what is told of it follows from recorded facts alone (`State.Context`), so that the same log gives
the same messages after a restart. What should be told in short is decided in compaction.py; here is only what that
means.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from app.core import events as e
from app.core.calls import call_key
from app.core.events import Json
from app.core.state import Context, HistoryItem, Words

INDEX_LINES_MAX = 8
INDEX_LINE_CHARS_MAX = 120
INDEXED_CHARS_MIN = 1_000
"""The newest so many summarised results of at least this length are listed with their references."""

SUMMARY_HEAD = (
    "[Summary of the conversation up to here, made by the system because the whole does not fit any more. "
    "No person has written this.]"
)
NO_SUMMARY = "(Nothing else is left of it.)"


def entered(item: HistoryItem) -> int:
    """The seq of the event that put an item into its history; never descending along it."""
    return item.told if isinstance(item, Words) else item.seq


def recent(history: list[HistoryItem], context: Context) -> int:
    """The index of the first item that is told as itself."""
    return bisect_right(history, context.through, key=entered) if context.through else 0


def reference(item: Words | e.ToolReturned) -> str:
    """The name under which the model reads the whole of an item; that of a result is also the one it is kept under."""
    return item.message if isinstance(item, Words) else call_key(item.run or "", item.path, item.call)


def text_of(item: Words | e.ToolReturned, context: Context) -> str:
    """The text of an item as the model is told it."""
    text = item.text if isinstance(item, Words) else item.result
    chars = context.shortened.get(item.seq)
    return text if chars is None else excerpt(text, chars, reference(item))


def excerpt(text: str, chars: int, ref: str = "") -> str:
    """First and last lines of a text, about `chars` characters, and what was left out between them."""
    if len(text) <= chars:
        return text
    first, last = text[: chars * 2 // 3], text[len(text) - chars // 3 :]
    if (end := first.rfind("\n")) > len(first) // 2:
        first = first[: end + 1]
    if 0 <= (start := last.find("\n")) < len(last) // 2:
        last = last[start + 1 :]
    left = len(text) - len(first) - len(last)
    told = f"kept as {ref}, from offset {len(first)} on; read_result reads it" if ref else "left out"
    return f"{first}\n[… {left:,} characters {told} …]\n{last}"


def kept_words(history: Sequence[HistoryItem], context: Context) -> list[Words]:
    """The person's messages that stand beside the summary, in order."""
    if not context.words:
        return []
    older = [item for item in history if isinstance(item, Words) and item.told <= context.through]
    return older[-context.words :]


def opening(history: list[HistoryItem], context: Context) -> list[Json]:
    """What is told instead of the summarised part: the person's own messages, then the summary; nothing without one."""
    if not context.through:
        return []
    told: list[Json] = [{"role": "user", "content": text_of(w, context)} for w in kept_words(history, context)]
    parts = [SUMMARY_HEAD, context.summary or NO_SUMMARY]
    if lines := index(history, context):
        parts.append("Earlier results that read_result can still read:\n" + "\n".join(lines))
    return [*told, {"role": "user", "content": "\n\n".join(parts)}]


def index(history: list[HistoryItem], context: Context) -> list[str]:
    """One line for each of the newest large results that the summary stands for."""
    older = history[: recent(history, context)]
    large = _indexed(older)
    wanted = {(item.run, item.call) for item in large}
    asked = {
        (item.run, call.call): call
        for item in older
        if isinstance(item, e.ModelReplied)
        for call in item.calls
        if (item.run, call.call) in wanted
    }
    lines = []
    for item in large:
        call = asked[item.run, item.call]
        line = f"{reference(item)}: {len(item.result):,} characters of {call.tool} {call.arguments}"
        lines.append(" ".join(line.split())[:INDEX_LINE_CHARS_MAX])
    return lines


def _indexed(older: Sequence[HistoryItem]) -> list[e.ToolReturned]:
    large = [item for item in older if isinstance(item, e.ToolReturned) and len(item.result) >= INDEXED_CHARS_MIN]
    return large[-INDEX_LINES_MAX:]


def tellable(history: list[HistoryItem], context: Context) -> list[HistoryItem]:
    """A history without what is told no more, now or after any later summary: all words, what the index lists with
    the replies that asked for it, and what is told as itself."""
    start = recent(history, context)
    large = _indexed(history[:start])
    listed = {id(item) for item in large}
    asked = {(item.run, item.call) for item in large}
    kept = [
        item
        for item in history[:start]
        if isinstance(item, Words)
        or id(item) in listed
        or (isinstance(item, e.ModelReplied) and any((item.run, call.call) in asked for call in item.calls))
    ]
    return [*kept, *history[start:]]
