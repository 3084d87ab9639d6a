"""`read_result`: the tool with which a model reads back what its context holds only by reference.

Its declaration is here, since what a model is offered and what its calls mean is pure; the bytes come from the level's
own history, or from what the log has kept of it (actor/reading.py). It is offered only where there is a reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.core import events as e
from app.core.context import reference
from app.core.events import Json
from app.core.state import HistoryItem, Words

READ_CHARS_MAX = 32_000
READ_PART = 8
"""Characters that one reading gives at most: an eighth of the window, or that many in a large one."""


@dataclass(frozen=True, slots=True)
class _ReadResult:
    """Satisfies `catalogue.ToolSpec`."""

    name: str = "read_result"
    rerun: Literal["never", "safe", "ask"] = "safe"
    interruptible: bool = False
    timeout: float | None = None
    expires_in: float | None = None
    agent: None = None

    @property
    def schema(self) -> Json:
        numbers = {"type": "integer", "minimum": 0}
        properties = {
            "reference": {"type": "string", "description": "As given: `kept as <reference>`."},
            "offset": {**numbers, "description": "The first character to read, from 0."},
            "length": {**numbers, "description": "How many characters; as many as are allowed without it."},
        }
        parameters = {"type": "object", "properties": properties, "required": ["reference"]}
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": "Read the original text of a result or message that is shown here only in part.",
                "parameters": {**parameters, "additionalProperties": False},
            },
        }

    def check(self, arguments: Json) -> str | None:
        """None when there is a reference, and the numbers are numbers."""
        if not isinstance(arguments.get("reference"), str) or set(arguments) - {"reference", "offset", "length"}:
            return "The arguments are `reference`, a text, and if wanted `offset` and `length`."
        for name in ("offset", "length"):
            value = arguments.get(name, 0)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                return f"`{name}` is a whole number from 0 on."
        return None

    def needs_approval(self, arguments: Json) -> bool:
        return False


READ_RESULT = _ReadResult()


def find(history: Sequence[HistoryItem], ref: str) -> Words | e.ToolReturned | None:
    """What a reference names in a level's history."""
    named = (item for item in reversed(history) if isinstance(item, Words | e.ToolReturned) and reference(item) == ref)
    return next(named, None)


def reading_chars(window: int) -> int:
    """How much one reading gives, in a window of so many characters."""
    return min(READ_CHARS_MAX, window // READ_PART)


def reading(text: str, offset: int, length: int, chars_max: int) -> str:
    """A part of a text as the model gets it: where it stands in one line, then the original characters."""
    part = text[offset : offset + min(length or chars_max, chars_max)]
    end = offset + len(part)
    on = f"; go on with offset {end}" if end < len(text) else ""
    return f"[characters {offset} to {end} of {len(text)}{on}]\n{part}"
