"""From whatever a tool returns to the text that the model reads.

Total by design: every Python value has a text, and none has more than RESULT_CHARS_MAX characters. What goes wrong
here is never reported as a failure of the tool, which by now has done its work. No I/O, no policy: how much of the text
is put before the model is decided in core.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
from pydantic import BaseModel

from app.core.codec import clean

RESULT_CHARS_MAX = 10_000_000
ITEMS_MAX = 100_000
NOTHING = "done"


def collect(items: Iterator[Any]) -> list[Any]:
    """What a generator yields, up to 100,000 items or 10,000,000 characters; the rest is never asked for."""
    taken: list[Any] = []
    size = 0
    for item in items:
        size += _weight(item)
        if len(taken) == ITEMS_MAX or size > RESULT_CHARS_MAX:
            taken.append(f"[cut after {len(taken):,} items]")
            break
        taken.append(item)
    close = getattr(items, "close", None)
    if callable(close):
        close()
    return taken


async def collect_async(items: AsyncIterator[Any]) -> list[Any]:
    """As `collect`, for asynchronous generators."""
    taken: list[Any] = []
    size = 0
    async for item in items:
        size += _weight(item)
        if len(taken) == ITEMS_MAX or size > RESULT_CHARS_MAX:
            taken.append(f"[cut after {len(taken):,} items]")
            break
        taken.append(item)
    close = getattr(items, "aclose", None)
    if callable(close):
        await close()
    return taken


def render(value: Any, safe: Callable[[str], str] = clean) -> str:
    """The text of a result: strings as they are, None as "done", everything else as JSON as far as it goes.

    NaN and infinities inside a structure become null, bytes base64, models and dataclasses objects, and what JSON has
    no word for its `repr`. `safe` is asked before the text is cut; lone surrogates become U+FFFD in any case. May raise
    what a value's own `__repr__` raises.
    """
    match value:
        case None:
            text = NOTHING
        case str():
            text = str(value)
        case bytes() | bytearray() | memoryview():
            raw = bytes(value)
            shown = base64.b64encode(raw[: RESULT_CHARS_MAX // 4 * 3]).decode("ascii")
            text = f"[{len(raw):,} bytes, base64] {shown}"
        case float() if not math.isfinite(value):
            text = repr(value)
        case _:
            text = _json(value)
    return cut(safe(text))


def cut(text: str, limit: int = RESULT_CHARS_MAX) -> str:
    """The text in at most `limit` characters; what was left out is said at its end."""
    if len(text) <= limit:
        return text
    note = f"\n[cut: the result has {len(text):,} characters]"
    return text[: limit - len(note)] + note


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=_plain).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass  # a huge integer, a lone surrogate, a key that is no string, a cycle: the slower ways are more tolerant
    try:
        return json.dumps(value, ensure_ascii=False, default=_plain)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return repr(value)


def _weight(item: Any) -> int:
    return len(item) + 1 if isinstance(item, str | bytes) else 1
