"""How much a level's next request holds, and how much it may hold. In characters: that is what can be counted here.

A token is four characters until the provider's last usage of the level has taught better. What the provider has called
too long bounds the window too, whatever the setting says. Nothing is decided here (compaction.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.core.catalogue import Rules
from app.core.codec import to_json
from app.core.context import text_of
from app.core.events import Json, Path
from app.core.state import Context, State, Words
from app.core.transcript import messages, tools

OUTPUT_PART = 8
"""An eighth of the window is kept for the reply."""

FREE_PART = 16
"""Instructions, notes and tools may be large; a sixteenth of the window is history's in any case."""

SUMMARY_CHARS_MAX = 65_536

MESSAGE_CHARS = 40
CALL_CHARS = 60
"""What a message and a call cost beside their texts."""

TEACHING_CHARS_MIN = 2_000
"""The usage of a smaller request says more about what the provider adds to it than about our text."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What of `Measure.free` the parts of a compacted history may take, in percent."""

    words: int
    tail: int
    summary: int


SHARES = (Shares(20, 25, 15), Shares(10, 10, 10), Shares(5, 3, 5))
"""By how hard it has to be: at first, after a request that was too long, after another one."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A request in characters: all that is `asked`, what of it is `fixed` (tools, instructions, notes), the `window`
    that it must fit, and what history has of that (`free`: without reserved output and what is fixed)."""

    asked: int
    fixed: int
    window: int
    free: int

    @property
    def percent(self) -> int:
        """How full history's part is."""
        return (self.asked - self.fixed) * 100 // self.free

    def why_full(self, context: Context) -> str:
        """Why nothing can make this request small enough, as people are told."""
        window, fixed, asked = (tokens_of(chars, context) for chars in (self.window, self.fixed, self.asked))
        if self.fixed >= self.window:
            return f"Instructions, notes and tools alone take about {fixed:,} tokens, and the window has {window:,}."
        return f"About {asked:,} tokens cannot become fewer, and the window has {window:,}."

    def summary_chars(self, hardness: int) -> int:
        return min(self.free * SHARES[hardness].summary // 100, SUMMARY_CHARS_MAX)


def waiting(state: State, path: Path) -> list[Words]:
    """The hints that a level's next request will bring."""
    return [words for words in state.queue if words.kind == "hint" and not path]


def measure(state: State, path: Path, rules: Rules, context: Context | None = None) -> Measure:
    """The next request of a level, with the hints that wait for it; with another `context`, as it would be then."""
    assert state.run is not None
    context = context or state.run.levels[path].context
    told = messages(state, path, rules, context)
    offered = tools(state, path, rules)
    fixed = size(message for message in told if message["role"] == "system") + (len(to_json(offered)) if offered else 0)
    history = size(message for message in told if message["role"] != "system")
    history += sum(MESSAGE_CHARS + len(text_of(words, context)) for words in waiting(state, path))
    window = window_chars(context, rules)
    free = max(window - window // OUTPUT_PART - fixed, window // FREE_PART, 1)
    return Measure(fixed + history, fixed, window, free)


def size(told: Iterable[Json]) -> int:
    """Messages in characters: their texts, and what each costs beside."""
    total = 0
    for message in told:
        total += MESSAGE_CHARS + len(message.get("content", ""))
        for call in message.get("tool_calls", ()):
            total += CALL_CHARS + len(call["function"]["name"]) + len(call["function"]["arguments"])
    return total


def window_chars(context: Context, rules: Rules) -> int:
    """The window in characters of this level's text; below the smallest request that was called too long."""
    tokens, chars = _ratio(context)
    window = rules.context_tokens * chars // tokens
    return min(window, context.refused - 1) if context.refused else window


def tokens_of(chars: int, context: Context) -> int:
    tokens, per = _ratio(context)
    return -(-chars * tokens // per)


def _ratio(context: Context) -> tuple[int, int]:
    """Tokens, and the characters that they are: 1 to 4, or as the provider counted, from 1 to 8 up to 2 to 1.

    Less than that is no count of the whole request: some providers leave out what they had cached.
    """
    if context.asked < TEACHING_CHARS_MIN or context.input * 8 < context.asked:
        return 1, 4
    return min(context.input, 2 * context.asked), context.asked
